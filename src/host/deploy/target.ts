import { constants } from 'node:fs'
import { type FileHandle, open, realpath, stat } from 'node:fs/promises'
import { ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import {
  assertNoLoop,
  assertUnused,
  type BlockDevice,
  describeDevice,
  deviceNumber,
  type KernelFolders,
  kernelFolders,
} from './block-device.ts'
import { lockFile } from './file-lock.ts'
import type { Stretch } from './patched-disk.ts'
import { PendingZeros } from './pending-zeros.ts'
import { CheapZeros, rereadPartitions, stopped } from './zeroing.ts'

/** O_DIRECT wants offsets and lengths in blocks of the medium: no disk has larger ones. */
const BLOCK_BYTES = 4 * KiB
/** A program that zeroes costs milliseconds on a busy machine; less than this is written faster. */
const LEAST_CHEAP_BYTES = 2 * MiB
/** Of ranges that are to be zeros: a command line holds so many. */
const MOST_PENDING = 256
/** A disk that has to write them takes seconds over so many, and they are seconds until it can be stopped. */
const MOST_PENDING_BYTES = 512 * MiB
const zeros = new Uint8Array(MiB)

export interface TargetOptions {
  /** Only reads are to come. */
  readonly isReadOnly: boolean
  /** A file that is absent is made, and one that is shorter is made so long, once `prepare` is called. */
  readonly leastBytes: number
  /** Ends what makes zeros: it throws `cancelled` then. */
  readonly signal?: AbortSignal
  readonly kernel?: KernelFolders
}

/** A disk, or a file in the place of one, that an image is written to. */
export class Target {
  readonly path: string
  /** Null: a file. */
  readonly device: BlockDevice | null
  readonly size: number
  readonly #handle: FileHandle
  readonly #direct: FileHandle | null
  readonly #zeros: CheapZeros
  readonly #signal: AbortSignal | undefined
  readonly #pending = new PendingZeros()
  #isDirect: boolean

  private constructor(
    path: string,
    device: BlockDevice | null,
    size: number,
    handle: FileHandle,
    direct: FileHandle | null,
    signal?: AbortSignal,
  ) {
    this.path = path
    this.device = device
    this.size = size
    this.#handle = handle
    this.#direct = direct
    this.#signal = signal
    this.#zeros = new CheapZeros(handle.fd)
    this.#isDirect = direct !== null
  }

  /**
   * Claims a disk (O_EXCL), or a file by a lock, for this process and those that it has make zeros.
   * @throws ServiceError `not-found`, `invalid-request`, `denied`; `conflict` where it is in use; `too-large` for a disk that is too small
   */
  static async open(path: string, options: TargetOptions): Promise<Target> {
    const kernel = options.kernel ?? kernelFolders
    const number = await deviceNumber(path)
    const device = number === undefined ? null : await describeDevice(number, kernel)
    if (device) await assertMayBeWritten(device, path, options, kernel)
    else await assertMayBeMade(path, options, kernel)
    const handle = await opened(path, device, options)
    try {
      if (!device) await lockFile(handle.fd, path, { isShared: options.isReadOnly })
      const bytes = device?.bytes ?? Math.max((await handle.stat()).size, options.leastBytes)
      return new Target(path, device, bytes, handle, await openDirect(path), options.signal)
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  get sectorBytes(): number {
    return this.device?.sectorBytes ?? 512
  }
  /** Whether what is read comes from the medium itself; else the system may answer from its memory. */
  get isDirect(): boolean {
    return this.#isDirect
  }

  /** Of a file, which may be shorter than it will be; of a disk its size. */
  async bytesNow(): Promise<number> {
    return this.device ? this.size : (await this.#handle.stat()).size
  }

  /** Before anything is written: a file gets its length. */
  async prepare(): Promise<void> {
    if ((await this.bytesNow()) >= this.size) return
    await this.#handle.truncate(this.size).catch((error) => this.#refuse(error, 'grow', this.size))
  }

  /**
   * As far as it goes: beyond the end of a file that is still short there are zeros.
   * @param memory begins on a page, and has room for the range and the blocks in which it begins and ends
   * @returns a view of `memory`
   * @throws the system's error
   */
  async read(offset: number, length: number, memory: Uint8Array): Promise<Uint8Array> {
    const start = Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES
    const wanted = memory.subarray(0, Math.ceil((offset + length - start) / BLOCK_BYTES) * BLOCK_BYTES)
    const end = await this.#readInto(wanted, start)
    wanted.fill(0, end)
    return wanted.subarray(offset - start, offset - start + length)
  }

  /** @throws ServiceError `no-space`, `corrupt` */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    if (this.#pending.overlaps({ offset, length: bytes.length })) await this.#makeZeros()
    await this.#write(offset, bytes)
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const left = bytes.length - done
      const { bytesWritten } = await this.#handle
        .write(bytes, done, left, offset + done)
        .catch((error) => this.#refuse(error, 'write', offset + done))
      done += bytesWritten
    }
  }

  /** Frees the room where the medium can, at the next `sync` at the latest; until then old bytes may be read. @throws as `write`; `cancelled` */
  async zero(offset: number, length: number): Promise<void> {
    if (this.#pending.overlaps({ offset, length })) await this.#makeZeros()
    this.#pending.add({ offset, length })
    if (this.#pending.count >= MOST_PENDING || this.#pending.bytes >= MOST_PENDING_BYTES) await this.#makeZeros()
  }

  async #makeZeros(): Promise<void> {
    const ranges = this.#pending.take()
    const isCheap = ({ offset, length }: Stretch) =>
      length >= LEAST_CHEAP_BYTES && offset % this.sectorBytes === 0 && length % this.sectorBytes === 0
    const cheap = ranges.filter(isCheap)
    const isMade = cheap.length === 0 || (await this.#zeros.make(cheap, this.#signal))
    for (const { offset, length } of isMade ? ranges.filter((range) => !isCheap(range)) : ranges) {
      for (let done = 0; done < length; done += zeros.length) {
        if (this.#signal?.aborted) throw stopped()
        await this.#write(offset + done, zeros.subarray(0, Math.min(zeros.length, length - done)))
      }
    }
  }

  /** Settles when what was written is on the medium. @throws as `zero` */
  async sync(): Promise<void> {
    await this.#makeZeros()
    await this.#handle.datasync().catch((error) => this.#refuse(error, 'sync', 0))
  }

  /** @returns whether the kernel looked at the new partition table; null where there is nothing to look */
  async reread(): Promise<boolean | null> {
    return this.device ? rereadPartitions(this.path) : null
  }

  /** As it is now, for a look at what is on it. */
  source(): BlockSource {
    const { size } = this
    return {
      size,
      read: async (offset, length) => {
        const bytes = new Uint8Array(length)
        await readFully(this.#handle, bytes, offset)
        return bytes
      },
      async *extents(offset, length) {
        if (length > 0) yield { offset, length, kind: 'data' }
      },
      close: async () => undefined,
    }
  }

  async close(): Promise<void> {
    await this.#direct?.close()
    await this.#handle.close()
  }

  /** @returns bytes that were there */
  async #readInto(memory: Uint8Array, offset: number): Promise<number> {
    if (!this.#direct || !this.#isDirect) return readFully(this.#handle, memory, offset)
    try {
      return await readFully(this.#direct, memory, offset, BLOCK_BYTES)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error
      this.#isDirect = false // a file system that opens it so and cannot do it
      return readFully(this.#handle, memory, offset)
    }
  }

  #refuse(error: NodeJS.ErrnoException, verb: string, offset: number): never {
    const isFull = error.code === 'ENOSPC' || error.code === 'EDQUOT' || error.code === 'EFBIG'
    const what = isFull ? 'there is no room for it' : `the medium refused (${error.code})`
    const message = `cannot ${verb} ${this.path} at byte ${offset}: ${what}. It is not finished and will not start; give the same command again to go on`
    throw new ServiceError(isFull ? 'no-space' : 'corrupt', message, { offset }, { cause: error })
  }
}

async function assertMayBeWritten(
  device: BlockDevice,
  path: string,
  { leastBytes, isReadOnly }: TargetOptions,
  kernel: KernelFolders,
): Promise<void> {
  await assertUnused(device, path, kernel)
  if (device.isReadOnly && !isReadOnly) throw new ServiceError('conflict', `${path} is set to be read only: see blockdev --setrw`)
  if (device.bytes >= leastBytes) return
  const message = `${path} has ${device.bytes} bytes, and the image's disk ${leastBytes}: choose a larger one; nothing was written`
  throw new ServiceError('too-large', message, { device: device.name, bytes: device.bytes, needBytes: leastBytes })
}

/** @throws ServiceError `invalid-request`, `not-found`, `conflict` */
async function assertMayBeMade(path: string, { isReadOnly }: TargetOptions, kernel: KernelFolders): Promise<void> {
  const found = await stat(path).catch(() => undefined)
  if (found && !found.isFile()) {
    throw new ServiceError('invalid-request', `--to ${path} is neither a block device nor a file: name the disk, as /dev/sda`)
  }
  if (found) return assertNoLoop(path, kernel)
  const isDevice = path.startsWith('/dev/') && !path.startsWith('/dev/shm/')
  if (isDevice) throw new ServiceError('not-found', `there is no device ${path}: lsblk lists those that are there`)
  if (isReadOnly) throw new ServiceError('not-found', `there is no file ${path} to compare with`)
}

async function opened(path: string, device: BlockDevice | null, { isReadOnly }: TargetOptions): Promise<FileHandle> {
  const { O_RDONLY, O_RDWR, O_EXCL, O_CREAT } = constants
  const how = (isReadOnly ? O_RDONLY : O_RDWR) | (device ? O_EXCL : isReadOnly ? 0 : O_CREAT)
  return open(await realpath(path).catch(() => path), how, 0o600).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EBUSY')
      throw new ServiceError('conflict', `${path} is in use by the system or another program; nothing was written`)
    if (error.code === 'EACCES' || error.code === 'EPERM') {
      throw new ServiceError('denied', `${path} may not be ${isReadOnly ? 'read' : 'written'} by this user: run it as root`)
    }
    throw new ServiceError('invalid-request', `--to ${path} cannot be opened (${error.code})`, {}, { cause: error })
  })
}

/** Not every file system reads past the cache. */
const openDirect = (path: string): Promise<FileHandle | null> =>
  open(path, constants.O_RDONLY | constants.O_DIRECT).catch(() => null)

/** @param grainBytes what ends within such a piece was at the end, and cannot be gone on with */
async function readFully(handle: FileHandle, memory: Uint8Array, offset: number, grainBytes = 1): Promise<number> {
  let done = 0
  while (done < memory.length) {
    const { bytesRead } = await handle.read(memory, done, memory.length - done, offset + done)
    done += bytesRead
    if (bytesRead === 0 || bytesRead % grainBytes !== 0) break
  }
  return done
}
