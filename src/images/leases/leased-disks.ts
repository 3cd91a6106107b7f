import { setMaxListeners } from 'node:events'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import { readAhead } from '../../disk/filters/read-ahead.ts'
import { openImage } from '../../disk/formats/index.ts'
import type { ImagePorts } from '../ports.ts'
import { hasExpired, hashOfName, type Lease, leaseOfName } from './lease.ts'
import { SharedDisks } from './shared-disks.ts'

/** A leased disk as one connection has it open: what the NBD server takes for an export. */
export interface LeasedDisk {
  readonly disk: BlockSource
  /** For people; nothing that an image's author chose. */
  readonly description: string
  readonly blockSizes: { readonly minimumBytes: number; readonly preferredBytes: number }
  readonly multiConnection: boolean
  /** Aborted when the lease ends or expires, or its name is changed. */
  readonly revoked: AbortSignal
  release(): Promise<void>
}

/** A name that somebody has open, or is about to. */
interface OpenName {
  readonly over: AbortController
  users: number
  timer: NodeJS.Timeout | undefined
}

const LONGEST_TIMER_MS = 2 ** 31 - 1 // Node fires longer ones at once

/**
 * Disks by the names of their leases. The catalog says whether a name is good; who has one open is told when it no longer is: at
 * its expiry by a timer, otherwise by `changed`.
 */
export class LeasedDisks {
  readonly #ports: Pick<ImagePorts, 'catalog' | 'chunks' | 'now'>
  readonly #disks = new SharedDisks()
  readonly #names = new Map<string, OpenName>()

  constructor(ports: Pick<ImagePorts, 'catalog' | 'chunks' | 'now'>) {
    this.#ports = ports
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

  /** Disks that are open now. */
  get openDisks(): number {
    return this.#disks.size
  }

  async #goodLease(nameHash: string): Promise<Lease | undefined> {
    const found = await leaseOfName(this.#ports.catalog, nameHash)
    return found && !hasExpired(found.body, this.#ports.now()) ? found.body : undefined
  }

  async #show(nameHash: string, open: OpenName, { image }: Lease): Promise<LeasedDisk> {
    const { chunks } = this.#ports
    const shared = await this.#disks.take(`${image.manifest} ${image.diskFormat}`, () => openDisk(chunks, image))
    return {
      disk: shared.disk,
      description: `image ${image.id}`,
      blockSizes: { minimumBytes: 1, preferredBytes: chunks.chunkBytes },
      multiConnection: true,
      revoked: open.over.signal,
      release: async () => {
        this.#leave(nameHash, open)
        await shared.giveBack()
      },
    }
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

  #watchExpiry(nameHash: string, open: OpenName, { expiresAt }: Lease): void {
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

async function openDisk(chunks: ImagePorts['chunks'], { manifest, diskFormat }: Lease['image']): Promise<BlockSource> {
  const file = await chunks.open(manifest)
  try {
    const ahead = readAhead({ prefetch: (offset, length) => file.prefetch(offset, length), unitBytes: chunks.chunkBytes })
    return await openImage(diskFormat, stack(file, [ahead]))
  } catch (error) {
    await file.close()
    throw error
  }
}
