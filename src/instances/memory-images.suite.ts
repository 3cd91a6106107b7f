import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { GiB } from '../base/units.ts'
import type { DiskAddress } from './hypervisor/hypervisor.ts'
import type {
  BootImage,
  HeldLease,
  ImageDisks,
  ImagePart,
  ImageParts,
  LentDisk,
  NewPart,
  SnapshotContents,
  SnapshotDraft,
  SnapshotImages,
} from './ports.ts'

type Sectors = ReadonlyMap<number, string>
interface MemoryImage extends BootImage {
  readonly projectId: string | null
  /** What stands at the offsets that are not zeros. */
  readonly sectors: Sectors
  readonly parts: ReadonlyMap<string, KeptPart>
  readonly isProtected: boolean
}
/** A disk: by what is in it. */
type KeptPart = NewPart & { readonly content?: string }
interface MemoryLease extends HeldLease {
  readonly image: MemoryImage
  readonly withParts: boolean
  address: DiskAddress
}
const SECTOR = 512

/** Images as `src/images` lends and makes them: whose project sees them, leases that hold on when the image is gone, snapshots. */
export class MemoryImages implements ImageDisks, ImageParts, SnapshotImages {
  readonly images = new Map<string, MemoryImage>()
  readonly lent = new Map<string, MemoryLease>()
  /** Begun, and not active. */
  readonly begun = new Map<
    string,
    { readonly draft: SnapshotDraft; readonly projectId: string | null; parts: Map<string, KeptPart> }
  >()
  /** Snapshots of volumes, which are leases too: what is in them, by id. */
  readonly volumeSnapshots = new Map<string, { readonly content: string }>()

  add(changes: Partial<MemoryImage> = {}): string {
    const id = randomUUID()
    const plain = { name: 'debian', diskBytes: GiB / 2, minDisk: 0, minRam: 0, properties: {}, projectId: null }
    this.images.set(id, { sectors: new Map(), parts: new Map(), isProtected: false, ...plain, ...changes, id })
    return id
  }

  async show(caller: Caller, imageId: string): Promise<BootImage> {
    return this.#find(caller, imageId)
  }

  async lend(caller: Caller, imageId: string, holder: string, { withParts = false } = {}): Promise<LentDisk> {
    const image = this.#find(caller, imageId)
    const leaseId = randomUUID()
    const address = newAddress()
    this.lent.set(leaseId, { leaseId, holder, address, image, withParts })
    return { leaseId, image, address }
  }

  async readdress(leaseId: string): Promise<DiskAddress> {
    const lease = this.lent.get(leaseId)
    if (!lease) throw new ServiceError('not-found', `there is no lease ${leaseId}`)
    lease.address = newAddress()
    return lease.address
  }

  async release(leaseId: string): Promise<void> {
    this.lent.delete(leaseId)
  }

  async *held(holderKind: string): AsyncGenerator<HeldLease> {
    for (const lease of [...this.lent.values()]) if (lease.holder.startsWith(`${holderKind} `)) yield lease
  }

  async begin({ projectId }: Caller, draft: SnapshotDraft): Promise<void> {
    if (!this.begun.has(draft.id)) this.begun.set(draft.id, { draft, projectId, parts: new Map() })
  }

  async addPart(imageId: string, part: NewPart): Promise<void> {
    const kept = part.kind === 'memory' ? { ...part, body: await taken(part.body) } : part
    const content = part.kind === 'disk' ? this.volumeSnapshots.get(part.disk.leaseId ?? '')?.content : undefined
    this.#begun(imageId).parts.set(part.name, content === undefined ? kept : { ...kept, content })
  }

  async save(imageId: string, { disk, properties }: SnapshotContents): Promise<void> {
    if (this.images.has(imageId)) return
    const { draft, projectId, parts } = this.#begun(imageId)
    const volume = this.volumeSnapshots.get(disk.leaseId ?? '')
    const ofVolume = volume && { sectors: new Map([[0, volume.content]]) }
    const under = disk.leaseId === null ? undefined : (this.lent.get(disk.leaseId)?.image ?? ofVolume)
    if (disk.leaseId !== null && !under) throw new ServiceError('not-found', `there is no lease ${disk.leaseId}`)
    const sectors = new Map(under?.sectors)
    for (const layer of disk.layers) {
      for await (const { offset, length, kind } of layer.extents(0, layer.size)) {
        if (kind === 'hole') continue
        for (let at = offset; at < offset + length; at += SECTOR) {
          sectors.set(at, Buffer.from(await layer.read(at, SECTOR)).toString('latin1'))
        }
      }
    }
    this.add({
      name: draft.name,
      diskBytes: disk.bytes,
      projectId,
      sectors,
      parts,
      properties: { ...draft.properties, ...properties },
    })
    const made = [...this.images.values()].at(-1)!
    this.images.delete(made.id)
    this.images.set(imageId, { ...made, id: imageId })
    this.begun.delete(imageId)
  }

  async giveUp(imageId: string): Promise<void> {
    this.begun.delete(imageId)
  }

  async rotate(projectId: string, properties: Readonly<Record<string, string>>, keep: number): Promise<number> {
    const alike = [...this.images.values()].filter(
      (image) =>
        image.projectId === projectId && Object.entries(properties).every(([name, value]) => image.properties[name] === value),
    )
    const old = alike.slice(0, Math.max(0, alike.length - keep)).filter(({ isProtected }) => !isProtected)
    for (const { id } of old) this.images.delete(id)
    return old.length
  }

  async remove(imageId: string): Promise<void> {
    this.begun.delete(imageId)
    this.images.delete(imageId)
  }

  async parts(caller: Caller, imageId: string): Promise<readonly ImagePart[]> {
    return [...this.#find(caller, imageId).parts.values()].map(({ name, kind }) => ({ name, kind, bytes: 0 }))
  }

  async *readPart(caller: Caller, imageId: string, partName: string): AsyncGenerator<Uint8Array> {
    const part = this.#find(caller, imageId).parts.get(partName)
    if (!part) throw new ServiceError('not-found', `there is no part ${partName}`)
    if (part.kind === 'machine') yield Buffer.from(part.text)
    if (part.kind === 'memory') yield* part.body
  }

  async lentParts(leaseId: string): Promise<readonly ImagePart[]> {
    return [...this.#lent(leaseId).parts.values()].map(({ name, kind }) => ({ name, kind, bytes: 0 }))
  }

  async *readLentPart(leaseId: string, partName: string): AsyncGenerator<Uint8Array> {
    const part = this.#lent(leaseId).parts.get(partName)
    if (part?.kind === 'machine') yield Buffer.from(part.text)
    if (part?.kind === 'memory') yield* part.body
  }

  /** What is in it, or, with a name, in a part of it: for volumes. */
  contentOf(image: MemoryImage, part: string | null | undefined): string {
    return (part ? image.parts.get(part)?.content : image.sectors.get(0)) ?? ''
  }

  #lent(leaseId: string): MemoryImage {
    const lease = this.lent.get(leaseId)
    if (!lease?.withParts) throw new ServiceError('not-found', `there is no lease ${leaseId}, or not of parts`)
    return lease.image
  }

  #find(caller: Caller, imageId: string): MemoryImage {
    const image = this.images.get(imageId)
    if (image && (caller.isAdmin || image.projectId === null || image.projectId === caller.projectId)) return image
    throw new ServiceError('not-found', `there is no image with the id "${imageId}"`)
  }

  #begun(imageId: string) {
    const begun = this.begun.get(imageId)
    if (!begun) throw new ServiceError('not-found', `there is no image with the id "${imageId}"`)
    return begun
  }
}
const newAddress = (): DiskAddress => ({ socketPath: '/run/imprint/nbd.sock', exportName: randomUUID() })

/** Every buffer, to be read any number of times. */
async function taken(body: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const pieces: Uint8Array[] = []
  for await (const piece of body) pieces.push(Uint8Array.from(piece))
  return {
    async *[Symbol.asyncIterator]() {
      yield* pieces
    },
  }
}
