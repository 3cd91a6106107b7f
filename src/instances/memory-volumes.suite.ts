import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { GiB } from '../base/units.ts'
import type { DiskAddress } from './hypervisor/hypervisor.ts'
import { MemoryImages } from './memory-images.suite.ts'
import type { AttachedVolume, InstanceVolumes, NewVolumeSnapshot, RevertTo } from './ports.ts'
import type { MadeVolume } from './volumes/attachment.ts'

interface MemoryVolume extends AttachedVolume {
  status: 'available' | 'attaching' | 'in-use' | 'detaching'
  /** All that is in it: a word. */
  content: string
  instanceId: string | null
  device: string | null
  address: DiskAddress | null
}

interface MemorySnapshot extends AttachedVolume {
  readonly name: string
  readonly volumeId: string
  readonly content: string
  readonly projectId: string | null
}

/** Volumes as `src/volumes` has them for instances: for tests. */
export class MemoryVolumes implements InstanceVolumes {
  readonly volumes = new Map<string, MemoryVolume>()
  readonly snapshots: Map<string, MemorySnapshot>
  /** What volumes are to be, by id. */
  readonly reverts = new Map<string, string>()
  readonly #images: MemoryImages

  constructor(images = new MemoryImages()) {
    this.#images = images
    this.snapshots = images.volumeSnapshots as Map<string, MemorySnapshot>
  }

  add(changes: Partial<MemoryVolume> = {}): string {
    const id = changes.id ?? randomUUID()
    const plain = {
      bytes: GiB,
      content: '',
      isBootable: false,
      imageMetadata: null,
      instanceId: null,
      device: null,
      address: null,
    }
    this.volumes.set(id, { ...plain, status: 'available', ...changes, id })
    return id
  }

  async check(_: Caller, volumeId: string): Promise<AttachedVolume> {
    const volume = this.#find(volumeId)
    if (volume.status === 'available') return volume
    throw new ServiceError('conflict', `volume ${volumeId} is ${volume.status}`)
  }
  async reserve(caller: Caller, volumeId: string, instanceId: string): Promise<AttachedVolume> {
    await this.check(caller, volumeId)
    return Object.assign(this.#find(volumeId), { status: 'attaching', instanceId })
  }
  async show(volumeId: string, instanceId: string): Promise<AttachedVolume> {
    const volume = this.#find(volumeId)
    if (volume.instanceId === instanceId) return volume
    throw new ServiceError('not-found', `volume ${volumeId} is not attached to instance ${instanceId}`)
  }
  async isHeldBy(volumeId: string, instanceId: string): Promise<boolean> {
    return this.volumes.get(volumeId)?.instanceId === instanceId
  }
  async address(volumeId: string, instanceId: string): Promise<DiskAddress> {
    await this.show(volumeId, instanceId)
    const address = { socketPath: '/run/imprint/nbd.sock', exportName: randomUUID() }
    this.#find(volumeId).address = address
    return address
  }
  async whenOpen(volumeId: string): Promise<void> {
    this.#find(volumeId)
  }
  async attached(volumeId: string, instanceId: string, device: string): Promise<void> {
    if (await this.isHeldBy(volumeId, instanceId)) Object.assign(this.#find(volumeId), { status: 'in-use', device })
  }
  async detaching(volumeId: string, instanceId: string): Promise<void> {
    if (await this.isHeldBy(volumeId, instanceId)) this.#find(volumeId).status = 'detaching'
  }
  async released(volumeId: string, instanceId: string): Promise<void> {
    if (!(await this.isHeldBy(volumeId, instanceId))) return
    Object.assign(this.#find(volumeId), { status: 'available', instanceId: null, device: null, address: null })
  }
  async delete(volumeId: string): Promise<void> {
    this.volumes.delete(volumeId)
  }
  async checkSnapshot(caller: Caller, snapshotId: string): Promise<MemorySnapshot> {
    const snapshot = this.snapshots.get(snapshotId)
    if (snapshot && (caller.isAdmin || snapshot.projectId === caller.projectId)) return snapshot
    throw new ServiceError('not-found', `Snapshot ${snapshotId} could not be found.`)
  }
  async checkSnapshots(_: Caller, volumeIds: readonly string[]): Promise<void> {
    for (const id of volumeIds) this.#find(id)
  }
  async checkCopies(_: Caller, volumeIds: readonly string[]): Promise<void> {
    for (const id of volumeIds) this.#find(id)
  }
  async snapshot({ projectId }: Caller, wanted: readonly NewVolumeSnapshot[]): Promise<void> {
    for (const { id, volumeId, name } of wanted) {
      const { bytes, content, isBootable, imageMetadata } = this.#find(volumeId)
      this.snapshots.set(id, { id, volumeId, name, bytes, content, isBootable, imageMetadata, projectId })
    }
  }
  async stored(wanted: readonly Pick<NewVolumeSnapshot, 'id' | 'volumeId'>[]): Promise<void> {
    const gone = wanted.find(({ id }) => !this.snapshots.has(id))
    if (gone) throw new ServiceError('conflict', `snapshot ${gone.id} is gone`)
  }
  async deleteSnapshot(snapshotId: string): Promise<void> {
    this.snapshots.delete(snapshotId)
  }
  async prepareRevert(caller: Caller, volumeId: string, instanceId: string, to: RevertTo): Promise<void> {
    await this.show(volumeId, instanceId)
    const lent = to.kind === 'lent' ? this.#images.lent.get(to.leaseId)?.image : undefined
    const content =
      to.kind === 'snapshot'
        ? (await this.checkSnapshot(caller, to.snapshotId)).content
        : lent && this.#images.contentOf(lent, to.part)
    if (content === undefined) throw new ServiceError('not-found', 'there is no such lease')
    this.reverts.set(volumeId, content)
  }
  async cancelRevert(volumeId: string): Promise<void> {
    this.reverts.delete(volumeId)
  }
  async revert(volumeId: string, instanceId: string): Promise<void> {
    await this.show(volumeId, instanceId)
    const content = this.reverts.get(volumeId)
    if (content !== undefined) this.#find(volumeId).content = content
    this.reverts.delete(volumeId)
  }
  async create(caller: Caller, volumeId: string, { sizeGiB, from }: MadeVolume): Promise<void> {
    if (this.volumes.has(volumeId)) return
    const { bytes, content, isBootable, imageMetadata } =
      from.kind === 'snapshot'
        ? await this.checkSnapshot(caller, from.snapshotId)
        : { bytes: GiB, content: this.#contentFrom(from), isBootable: from.kind === 'image', imageMetadata: null }
    this.add({ id: volumeId, bytes: sizeGiB === null ? bytes : sizeGiB * GiB, content, isBootable, imageMetadata })
  }
  async held(): Promise<readonly { readonly volumeId: string; readonly instanceId: string }[]> {
    return [...this.volumes.values()].flatMap(({ id, instanceId }) => (instanceId ? [{ volumeId: id, instanceId }] : []))
  }

  #contentFrom(from: MadeVolume['from']): string {
    const image = from.kind === 'image' ? this.#images.images.get(from.imageId) : undefined
    return image && from.kind === 'image' ? this.#images.contentOf(image, from.part) : ''
  }

  #find(volumeId: string): MemoryVolume {
    const volume = this.volumes.get(volumeId)
    if (volume) return volume
    throw new ServiceError('not-found', `Volume ${volumeId} could not be found.`)
  }
}
