import { setMaxListeners } from 'node:events'
import { ServiceError } from '../../base/errors.ts'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import type { BlockWriter } from '../../disk/block/block-writer.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { COW_BLOCK_BYTES } from '../../disk/filters/cow.ts'
import { readAhead } from '../../disk/filters/read-ahead.ts'
import { sized } from '../../disk/filters/sized.ts'
import { openImage } from '../../disk/formats/index.ts'
import type { ScratchDisk } from '../../store/scratch/layered-disk.ts'
import type { ScratchDisks } from '../../store/scratch/scratch-disks.ts'
import { bootFilters } from '../boot-records/boot-filters.ts'
import type { ImagePorts } from '../ports.ts'
import { hasExpired, hashOfName, type Lease, type LeasedImage, leaseOfName, type StoredLease } from './lease.ts'
import { SharedDisks } from './shared-disks.ts'

/** A leased disk as one connection has it open: what the NBD server takes for an export. */
export interface LeasedDisk {
  readonly disk: BlockSource
  readonly writer?: BlockWriter
  /** For people; nothing that an image's author chose. */
  readonly description: string
  readonly blockSizes: { readonly minimumBytes: number; readonly preferredBytes: number }
  readonly multiConnection: boolean
  /** Aborted when the lease ends or expires, or its name is changed. */
  readonly revoked: AbortSignal
  release(): Promise<void>
}

type LeasedDiskPorts = Pick<ImagePorts, 'catalog' | 'chunks' | 'now'>

/** A name that somebody has open, or is about to. */
interface OpenName {
  readonly over: AbortController
  users: number
  timer: NodeJS.Timeout | undefined
}

type ScratchPlace = Pick<ScratchDisks, 'create' | 'open' | 'remove'>

const LONGEST_TIMER_MS = 2 ** 31 - 1 // Node fires longer ones at once

/**
 * Disks by the names of their leases. The catalog says whether a name is good; who has one open is told when it no longer is: at
 * its expiry by a timer, otherwise by `changed`.
 */
export class LeasedDisks {
  readonly #ports: LeasedDiskPorts
  readonly #scratch: ScratchPlace | null
  /** By manifest and format. */
  readonly #disks = new SharedDisks<BlockSource>()
  /** By lease. */
  readonly #writable = new SharedDisks<ScratchDisk>()
  readonly #names = new Map<string, OpenName>()

  /** @param scratch where what is written goes; null: leases of writable disks cannot be opened */
  constructor(ports: LeasedDiskPorts, scratch: ScratchPlace | null) {
    this.#ports = ports
    this.#scratch = scratch
  }

  /** @returns undefined for every name that is not good, after the same work. @throws ServiceError where the bytes cannot be read */
  async open(name: string): Promise<LeasedDisk | undefined> {
    const nameHash = hashOfName(name)
    // Entered before it is looked up: a lease that ends in between is seen as gone, or says so to this entry.
    const open = this.#enter(nameHash)
    try {
      const lease = await this.#goodLease(nameHash)
      if (!lease) {
        this.#leave(nameHash, open)
        return undefined
      }
      this.#watchExpiry(nameHash, open, lease)
      return await this.#show(nameHash, open, lease)
    } catch (error) {
      this.#leave(nameHash, open)
      throw error
    }
  }

  /** Names are secrets of their leases. */
  async list(): Promise<readonly never[]> {
    return []
  }

  /** The lease with this name ended, or has another name or end from now on: looks whether those who have it open may go on. */
  async changed(nameHash: string): Promise<void> {
    const open = this.#names.get(nameHash)
    if (!open) return
    const lease = await this.#goodLease(nameHash)
    if (lease) this.#watchExpiry(nameHash, open, lease)
    else this.#end(nameHash, open)
  }

  /** Makes the place for what is written, then the lease that names it; where that fails, the place is gone again. */
  prepare<T>(leaseId: string, diskBytes: number, makeLease: () => Promise<T>): Promise<T> {
    return this.#scratchPlace().create(leaseId, diskBytes, makeLease)
  }

  /** The lease has ended: what was written goes, when nobody has it open any more. */
  async discard(leaseId: string): Promise<void> {
    await this.#scratch?.remove(leaseId).catch(() => undefined) // a sweep finds what stayed
  }

  /** The disk of a lease that is writable, open while `work` runs: those who have it open see what it does. @throws as `open` */
  async withScratch<T>(lease: StoredLease, work: (disk: ScratchDisk) => Promise<T>): Promise<T> {
    const { disk, giveBack } = await this.#takeScratch(lease)
    try {
      return await work(disk)
    } finally {
      await giveBack()
    }
  }

  /** What is read of a writable disk where nobody has written, as large as the disk. The caller closes it. */
  async openBase({ image, diskBytes }: Pick<Lease, 'image' | 'diskBytes'>): Promise<BlockSource> {
    return image ? sized(diskBytes)(await openDisk(this.#ports, image)) : memorySource(diskBytes, [])
  }

  /** Settles when somebody has the disk of the lease, which is writable, open. */
  whenOpen(leaseId: string): Promise<void> {
    return this.#writable.whenOpen(leaseId)
  }

  /** Settles when nobody has the disk of the lease open. */
  whenClosed(leaseId: string): Promise<void> {
    return this.#writable.whenClosed(leaseId)
  }

  /** Disks that are open now. */
  get openDisks(): number {
    return this.#disks.size + this.#writable.size
  }

  async #goodLease(nameHash: string): Promise<StoredLease | undefined> {
    const found = await leaseOfName(this.#ports.catalog, nameHash)
    return found && !hasExpired(found.body, this.#ports.now()) ? found : undefined
  }

  async #show(nameHash: string, open: OpenName, lease: StoredLease): Promise<LeasedDisk> {
    const { giveBack, ...shown } = lease.body.isWritable ? await this.#takeWritable(lease) : await this.#takeReadOnly(lease)
    return {
      ...shown,
      multiConnection: true, // all have one disk open
      revoked: open.over.signal,
      release: async () => {
        this.#leave(nameHash, open)
        await giveBack()
      },
    }
  }

  async #takeReadOnly({ key, body: { image } }: StoredLease) {
    const { chunks } = this.#ports
    if (!image) throw new Error(`lease ${key} is of nothing`)
    const { disk, giveBack } = await this.#disks.take(`${image.manifest} ${image.diskFormat}`, () => openDisk(this.#ports, image))
    const blockSizes = { minimumBytes: 1, preferredBytes: chunks.chunkBytes }
    return { disk, giveBack, blockSizes, description: `image ${image.id}` }
  }

  async #takeWritable(lease: StoredLease) {
    const { disk, giveBack } = await this.#takeScratch(lease)
    const { image } = lease.body
    const blockSizes = { minimumBytes: 1, preferredBytes: COW_BLOCK_BYTES }
    const description = image ? `scratch disk over image ${image.id}` : 'scratch disk'
    return { disk, writer: disk, giveBack, blockSizes, description }
  }

  #takeScratch({ key, body }: StoredLease) {
    const scratch = this.#scratchPlace()
    return this.#writable.take(key, async () => {
      const disk = await scratch.open(key, await this.openBase(body), body.projectId)
      if (body.dropsThrough !== undefined && disk.layers.includes(body.dropsThrough)) {
        await disk.rebase(body.dropsThrough, await this.openBase(body))
      }
      return disk
    })
  }

  #scratchPlace(): ScratchPlace {
    if (this.#scratch) return this.#scratch
    throw new ServiceError('unsupported', 'this service has no place for writable disks')
  }

  #enter(nameHash: string): OpenName {
    const open = this.#names.get(nameHash) ?? newOpenName()
    this.#names.set(nameHash, open)
    open.users += 1
    return open
  }

  #leave(nameHash: string, open: OpenName): void {
    open.users -= 1
    if (open.users > 0) return
    clearTimeout(open.timer)
    if (this.#names.get(nameHash) === open) this.#names.delete(nameHash)
  }

  #end(nameHash: string, open: OpenName): void {
    clearTimeout(open.timer)
    if (this.#names.get(nameHash) === open) this.#names.delete(nameHash)
    open.over.abort()
  }

  #watchExpiry(nameHash: string, open: OpenName, { body: { expiresAt } }: StoredLease): void {
    clearTimeout(open.timer)
    if (expiresAt === null || open.users === 0) return
    const leftMs = Math.min(Math.max(0, expiresAt - this.#ports.now()), LONGEST_TIMER_MS)
    // a catalog that cannot be read says nothing for the lease: those who have it open come again
    const ended = () => this.changed(nameHash).catch(() => this.#end(nameHash, open))
    open.timer = setTimeout(() => void ended(), leftMs).unref()
  }
}

function newOpenName(): OpenName {
  const over = new AbortController()
  setMaxListeners(0, over.signal) // each connection listens
  return { over, users: 0, timer: undefined }
}

async function openDisk(ports: LeasedDiskPorts, image: LeasedImage): Promise<BlockSource> {
  const { chunks } = ports
  const file = await chunks.open(image.manifest)
  try {
    const ahead = readAhead({ prefetch: (offset, length) => file.prefetch(offset, length), unitBytes: chunks.chunkBytes })
    return await openImage(image.diskFormat, stack(file, [ahead, ...(await bootFilters(ports, image, file))]))
  } catch (error) {
    await file.close()
    throw error
  }
}
