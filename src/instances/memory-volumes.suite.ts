import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { GiB } from '../base/units.ts'
import type { DiskAddress } from './hypervisor/hypervisor.ts'
import type { AttachedVolume, InstanceVolumes } from './ports.ts'
import type { MadeVolume } from './volumes/attachment.ts'

interface MemoryVolume extends AttachedVolume {
  status: 'available' | 'attaching' | 'in-use' | 'detaching'
  instanceId: string | null
  device: string | null
  address: DiskAddress | null
}

/** Volumes as `src/volumes` has them for instances: for tests. */
export class MemoryVolumes implements InstanceVolumes {
  readonly volumes = new Map<string, MemoryVolume>()

  add(changes: Partial<MemoryVolume> = {}): string {
    const id = changes.id ?? randomUUID()
    const plain = { bytes: GiB, isBootable: false, imageMetadata: null, instanceId: null, device: null, address: null }
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
  async create(_: Caller, volumeId: string, { sizeGiB }: MadeVolume): Promise<void> {
    if (!this.volumes.has(volumeId)) this.add({ id: volumeId, bytes: (sizeGiB ?? 1) * GiB })
  }
  async held(): Promise<readonly { readonly volumeId: string; readonly instanceId: string }[]> {
    return [...this.volumes.values()].flatMap(({ id, instanceId }) => (instanceId ? [{ volumeId: id, instanceId }] : []))
  }

  #find(volumeId: string): MemoryVolume {
    const volume = this.volumes.get(volumeId)
    if (volume) return volume
    throw new ServiceError('not-found', `Volume ${volumeId} could not be found.`)
  }
}
