import { type Caller, serviceCaller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { openableFormats, plainFormats } from '../../disk/formats/index.ts'
import type { CatalogWriter } from '../../store/catalog/catalog.ts'
import type { ChunkStore, Ingested } from '../../store/chunks/chunk-store.ts'
import { findImage } from '../find-image.ts'
import { type DiskLeases, endLease, enterLease, type LeasePorts, termsFrom } from '../leases/disk-leases.ts'
import {
  allLeases,
  getLease,
  type Lease,
  type LeasedImage,
  lendable,
  lendablePart,
  newName,
  putLease,
  type StoredLease,
} from '../leases/lease.ts'
import { findPart } from '../parts/read-parts.ts'
import { inTheEnd } from '../transfer.ts'

/** Disks of volumes may be written; what is kept beside them is only read. */
export type DiskKind = 'volume' | 'volume-snapshot' | 'volume-upload'
export type ContentsSource =
  | { readonly kind: 'blank' }
  | { readonly kind: 'image'; readonly imageId: string; readonly part?: string | undefined }
  /** A disk that was kept by `settle`. */
  | { readonly kind: 'kept'; readonly id: string }
export interface Kept {
  readonly id: string
  readonly kind: DiskKind
  readonly bytes: number
}
/** A disk that was kept by `settle`, or, of what is lent to others, a part or the disk itself. */
export interface RevertSource {
  /** Of the lease. */
  readonly id: string
  /** Null: the disk. */
  readonly part: string | null
}
type Base = Pick<Lease, 'image'>

interface VolumeDiskPorts extends LeasePorts {
  readonly chunks: Pick<ChunkStore, 'ingestDisk'>
}

const service = serviceCaller('req-volume')

/**
 * The bytes of volumes: a lease that may be written and has no end, whose id is the volume's. What it lies on is named by the lease, as is
 * what a snapshot of it keeps, so that the collector spares both.
 */
export class VolumeDisks {
  readonly #ports: VolumeDiskPorts
  readonly #leases: DiskLeases

  constructor(ports: VolumeDiskPorts, leases: DiskLeases) {
    this.#ports = ports
    this.#leases = leases
  }

  /**
   * Makes a disk that may be written. With an id that is there already it does nothing: who was killed asks again.
   * @throws ServiceError `not-found`, `denied`, `conflict`, `unsupported` for an image that the caller may not start machines from;
   *   `too-large`; errors of the system pass through
   */
  async make(caller: Caller, id: string, bytes: number, from: ContentsSource): Promise<void> {
    if (await getLease(this.#ports.catalog, id)) return
    await this.#prepared({ id, kind: 'volume', bytes }, async (tx) => {
      await this.#enter(tx, caller, { id, kind: 'volume', bytes }, await baseFrom(tx, caller, from))
    })
    failpoint('lease:made')
  }

  /** Settles when nobody has it open any more: the address before is good no more. @throws ServiceError `not-found` */
  async grow(id: string, bytes: number): Promise<void> {
    await this.#leases.readdress(id)
    await this.#ports.disks.whenClosed(id)
    await this.#ports.catalog.write(async (tx) => {
      const { body, version } = found(await getLease(tx, id), id)
      await putLease(tx, id, { ...body, diskBytes: Math.max(bytes, body.diskBytes) }, version)
    })
  }

  /** Where it is to be had over NBD from now on; the address before is good no more. @throws ServiceError `not-found` */
  address(id: string): ReturnType<DiskLeases['readdress']> {
    return this.#leases.readdress(id)
  }

  /** Settles when somebody has it open. */
  whenOpen(id: string): Promise<void> {
    return this.#ports.disks.whenOpen(id)
  }

  /** From one moment on writes go to a new layer. @returns the layer below it. @throws ServiceError `unavailable` where too many are sealed */
  async seal(id: string): Promise<number> {
    return this.#ports.disks.withScratch(await this.#find(id), (disk) => disk.seal())
  }

  /**
   * Stores what the disk was when that layer was sealed, as the base on which it lies from now on, and keeps another disk on the same
   * base. Layers are settled in their order. With a disk to keep that is there already it does nothing.
   * @param owner the project whose bytes these are
   * @throws ServiceError `no-space`, `corrupt`, `cancelled`
   */
  async settle(id: string, layer: number, owner: string, keep: Kept, signal: AbortSignal): Promise<void> {
    if (await getLease(this.#ports.catalog, keep.id)) return
    const lease = await this.#find(id)
    await this.#ports.disks.withScratch(lease, async (disk) => {
      if (!disk.layers.includes(layer)) {
        const message = `layer ${layer} of volume ${id} is gone, as after a restore from a backup: what it held is lost`
        throw new ServiceError('corrupt', message, { id, layer })
      }
      const { image, diskBytes } = lease.body
      const isPlain = image !== null && plainFormats.includes(image.diskFormat)
      const over = isPlain ? { over: { manifest: image.manifest, changed: disk.changedUpTo(layer) } } : {}
      const ingested = await this.#ports.chunks.ingestDisk(disk.asOf(layer), { owner, signal, ...over })
      failpoint('volume:ingested')
      const stored = { id: keep.id, name: null, owner, manifest: ingested.manifest, diskFormat: 'raw' }
      await this.#keep(lease, keep, stored, ingested)
      failpoint('volume:kept')
      await disk.rebase(layer, await this.#ports.disks.openBase({ image: stored, diskBytes }))
    })
  }

  /**
   * Notes what the disk is to become by `revert`, which is held from now on.
   * @throws ServiceError `not-found`
   */
  async prepareRevert(id: string, to: RevertSource): Promise<void> {
    await this.#ports.catalog.write(async (tx) => {
      const { body, version } = found(await getLease(tx, id), id)
      await putLease(tx, id, { ...body, revertsTo: imageIn(found(await getLease(tx, to.id), to.id).body, to) }, version)
    })
    failpoint('volume:revert-prepared')
  }

  /** It is to become nothing else. */
  async cancelRevert(id: string): Promise<void> {
    await this.#ports.catalog.write(async (tx) => {
      const lease = await getLease(tx, id)
      if (!lease?.body.revertsTo) return
      const { revertsTo: _, ...kept } = lease.body
      await putLease(tx, id, kept, lease.version)
    })
  }

  /**
   * The disk is what was prepared, and what was written to it is gone. Settles when nobody has it open any more: the address before is
   * good no more. Where nothing is prepared, it does nothing: who was killed asks again. What was sealed must be settled before.
   * @throws ServiceError `not-found`; `no-space`, `unavailable`
   */
  async revert(id: string): Promise<void> {
    if (!(await this.#find(id)).body.revertsTo) return
    await this.#leases.readdress(id)
    await this.#ports.disks.whenClosed(id)
    const last = await this.seal(id)
    await this.#ports.catalog.write(async (tx) => {
      const { body, version } = found(await getLease(tx, id), id)
      const { revertsTo, ...kept } = body
      if (revertsTo) await putLease(tx, id, { ...kept, image: revertsTo, dropsThrough: last }, version)
    })
    failpoint('volume:reverted')
    await this.#ports.disks.withScratch(await this.#find(id), async () => {}) // once opened, it has them no more
  }

  /** Ends it. Releasing twice succeeds. */
  async release(id: string): Promise<void> {
    await endLease(this.#ports, service, id)
  }

  async *held(kind: DiskKind): AsyncGenerator<string> {
    for await (const { key } of allLeases(this.#ports.catalog, kind)) yield key
  }

  /** In one transaction: the disk lies on what was stored, and another is kept on it. From then on the leases hold it. */
  async #keep({ key }: StoredLease, keep: Kept, image: LeasedImage, { lease }: Ingested): Promise<void> {
    try {
      await this.#prepared(keep, async (tx) => {
        const { body, version } = found(await getLease(tx, key), key)
        await putLease(tx, key, { ...body, image }, version)
        await this.#enter(tx, service, keep, { image })
      })
    } catch (error) {
      await inTheEnd(async () => {
        const isKept = (await getLease(this.#ports.catalog, keep.id))?.body.image?.manifest === image.manifest
        await (isKept ? lease.release() : lease.abandon())
      })
      throw error
    }
    await inTheEnd(() => lease.release())
  }

  /** One that may be written has a place for that first. */
  #prepared({ id, kind, bytes }: Kept, work: (tx: CatalogWriter) => Promise<void>): Promise<void> {
    const { catalog, disks } = this.#ports
    return kind === 'volume' ? disks.prepare(id, bytes, () => catalog.write(work)) : catalog.write(work)
  }

  async #enter(tx: CatalogWriter, caller: Caller, { id, kind, bytes }: Kept, { image }: Base): Promise<void> {
    const terms = {
      isWritable: kind === 'volume',
      projectId: null,
      holder: `${kind} ${id}`,
      nameHash: newName().nameHash,
      seconds: null,
    }
    await enterLease(tx, caller, id, { image, diskBytes: bytes, ...termsFrom(terms, this.#ports.now()) })
  }

  async #find(id: string): Promise<StoredLease> {
    return found(await getLease(this.#ports.catalog, id), id)
  }
}

/** @throws ServiceError `not-found`, `denied`, `conflict`, `unsupported` */
async function baseFrom(tx: CatalogWriter, caller: Caller, from: ContentsSource): Promise<Base> {
  if (from.kind === 'blank') return { image: null }
  if (from.kind === 'kept') return found(await getLease(tx, from.id), from.id).body
  if (from.part !== undefined) {
    const { image, part } = await findPart(tx, caller, from.imageId, from.part)
    return lendablePart(image, part)
  }
  const { image } = await findImage(tx, caller, from.imageId, 'download')
  return lendable(image, openableFormats)
}

/** @throws ServiceError `not-found` */
function imageIn({ image, parts = [] }: Lease, { id, part }: RevertSource): LeasedImage {
  const within = part === null ? image : parts.find(({ name, kind }) => name === part && kind === 'disk')
  if (!image || !within) throw new ServiceError('not-found', `lease ${id} has no disk "${part ?? ''}"`, { id })
  return part === null ? image : { ...image, manifest: within.manifest, diskFormat: 'raw' }
}

function found(lease: StoredLease | undefined, id: string): StoredLease {
  if (lease) return lease
  throw new ServiceError('not-found', `the bytes of volume ${id} are gone, as after a restore from a backup: delete it`, { id })
}
