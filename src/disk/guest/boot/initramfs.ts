import { isServiceError, ServiceError } from '../../../base/errors.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { unpacked } from '../../containers/compression/unpacked.ts'
import { cpioEntries, type Forward } from './cpio.ts'
import { LZ4_LEGACY_MAGIC, unpackLegacyLz4 } from './lz4.ts'
import { moduleName } from './modules.ts'

/** What an initramfs holds, by names alone. */
export interface Initramfs {
  /** `none`, `gzip`, `zstd`, `xz`, `bzip2`, `lz4` of its last archive; `unknown`: it could not be read. */
  readonly compression: string
  /** Drivers by name, `virtio_blk`. */
  readonly modules: ReadonlySet<string>
  /** Versions of the kernel that they are for. */
  readonly kernels: readonly string[]
  /** What made it, where its files say; null: not known. */
  readonly madeBy: 'initramfs-tools' | 'dracut' | 'mkinitcpio' | 'mkinitfs' | null
  /** Whether it has a first program; without it, and the root's driver built in, the kernel mounts the root itself. */
  readonly hasInit: boolean
  /** All of it was looked at: what is not in `modules` is not there. */
  readonly isWhole: boolean
  readonly notes: readonly string[]
}

const MAX_ENTRIES = 200_000
const MAX_MODULES = 20_000
const MAX_KERNELS = 32
const MAX_PACKED_BYTES = 512 * MiB
const MAX_UNPACKED_BYTES = 1024 * MiB
const MAX_ARCHIVES = 32
const PIECE_BYTES = 512 * KiB
const MODULE_PATH = /(?:^|\/)([^/]+\.ko(?:\.(?:gz|xz|zst|bz2))?)$/
const KERNEL_FOLDER = /^(?:\.\/|\/)?(?:usr\/)?lib\/modules\/([^/]{1,128})\//

/** Files by which the programs that make an initramfs are told apart. */
const makers: readonly (readonly [path: RegExp, maker: NonNullable<Initramfs['madeBy']>])[] = [
  [/^(usr\/)?lib\/dracut\//, 'dracut'],
  [/^conf\/(initramfs\.conf|arch\.conf)$/, 'initramfs-tools'],
  [/^(init_functions|buildconfig)$/, 'mkinitcpio'],
  [/^etc\/mkinitfs\//, 'mkinitfs'],
]

/**
 * Archives one after the other, as Linux takes them: those that are not compressed first (microcode), then one that may be. What cannot be
 * read is a note, and what was read before it counts. Reads all of the file, unpacks it as it comes, and keeps names.
 * Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
 */
export async function readInitramfs(file: BlockSource): Promise<Initramfs> {
  const found = new Contents()
  let compression = 'none'
  try {
    if (file.size > MAX_PACKED_BYTES)
      throw new ServiceError('too-large', `it has ${file.size} bytes, more than ${MAX_PACKED_BYTES}`)
    const input = new FileForward(file)
    for (let archives = 0; await input.skipZeros(); archives += 1) {
      if (archives >= MAX_ARCHIVES) throw new ServiceError('too-large', `it has more than ${MAX_ARCHIVES} archives`)
      const head = Buffer.from(await file.read(input.at, Math.min(6, file.size - input.at)))
      if (/^07070[12]$/.test(head.toString('latin1'))) {
        for await (const { path } of cpioEntries(input, found.entriesLeft)) found.add(path)
        continue
      }
      compression = await found.addPacked(input, head)
      break
    }
  } catch (error) {
    if (!isServiceError(error)) throw error
    found.notes.push(error.message)
  }
  return {
    compression,
    modules: found.modules,
    kernels: [...found.kernels],
    madeBy: found.madeBy,
    hasInit: found.hasInit,
    isWhole: found.notes.length === 0,
    notes: found.notes,
  }
}

class Contents {
  readonly modules = new Set<string>()
  readonly kernels = new Set<string>()
  readonly notes: string[] = []
  /** Of all archives together. */
  entriesLeft = MAX_ENTRIES
  madeBy: Initramfs['madeBy'] = null
  hasInit = false

  add(path: string): void {
    this.entriesLeft -= 1
    const [file, kernel] = [MODULE_PATH.exec(path)?.[1], KERNEL_FOLDER.exec(path)?.[1]]
    if (kernel !== undefined && this.kernels.size < MAX_KERNELS) this.kernels.add(kernel)
    if (file !== undefined) {
      if (this.modules.size < MAX_MODULES) this.modules.add(moduleName(file))
      return
    }
    const plain = path.replace(/^(\.\/|\/)+/, '')
    if (plain === 'init' || plain === 'sbin/init') this.hasInit = true
    this.madeBy ??= makers.find(([pattern]) => pattern.test(plain))?.[1] ?? null
  }

  /** @returns the compression */
  async addPacked(input: FileForward, head: Buffer): Promise<string> {
    if (head.length >= 4 && head.readUInt32LE() === LZ4_LEGACY_MAGIC) {
      await this.#addAll(limited(unpackLegacyLz4(input)))
      return 'lz4'
    }
    if (head[0] === 0x5d && head[1] === 0 && head[2] === 0) {
      this.notes.push('it is compressed with lzma, which is not read')
      return 'lzma'
    }
    const { compression, bytes } = await unpacked(input.rest(), { maxBytes: MAX_UNPACKED_BYTES })
    if (compression === 'none') {
      await bytes[Symbol.asyncIterator]().return?.()
      this.notes.push(`it has neither an archive nor a known compression at byte ${input.at}`)
      return 'unknown'
    }
    await this.#addAll(bytes)
    return compression
  }

  /** The archives of a stream; it is left after the last. */
  async #addAll(bytes: AsyncIterable<Uint8Array>): Promise<void> {
    const input = new StreamForward(bytes)
    try {
      for (let archives = 0; archives < MAX_ARCHIVES && (await input.skipZeros()); archives += 1)
        for await (const { path } of cpioEntries(input, this.entriesLeft)) this.add(path)
    } finally {
      await input.close()
    }
  }
}

async function* limited(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let total = 0
  for await (const piece of bytes) {
    total += piece.length
    if (total > MAX_UNPACKED_BYTES) throw new ServiceError('too-large', `more than ${MAX_UNPACKED_BYTES} bytes come out of it`)
    yield piece
  }
}

/** What is passed over is not read. */
class FileForward implements Forward {
  readonly #file: BlockSource
  at = 0

  constructor(file: BlockSource) {
    this.#file = file
  }
  async take(count: number): Promise<Uint8Array> {
    const bytes = await this.#file.read(this.at, Math.min(count, this.#file.size - this.at))
    this.at += bytes.length
    return bytes
  }
  skip(count: number): Promise<boolean> {
    const isInside = count <= this.#file.size - this.at
    this.at = isInside ? this.at + count : this.#file.size
    return Promise.resolve(isInside)
  }
  /** @returns whether something follows */
  async skipZeros(): Promise<boolean> {
    while (this.at < this.#file.size) {
      const piece = await this.#file.read(this.at, Math.min(PIECE_BYTES, this.#file.size - this.at))
      const first = piece.findIndex((byte) => byte !== 0)
      this.at += first < 0 ? piece.length : first
      if (first >= 0) return true
    }
    return false
  }
  async *rest(): AsyncGenerator<Uint8Array, void, undefined> {
    while (this.at < this.#file.size) yield await this.take(PIECE_BYTES)
  }
}

class StreamForward implements Forward {
  readonly #source: AsyncIterator<Uint8Array>
  #piece: Uint8Array = new Uint8Array()

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }
  async take(count: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    let left = count
    while (left > 0 && (await this.#fill())) {
      const part = this.#piece.slice(0, left)
      this.#piece = this.#piece.subarray(part.length)
      left -= part.length
      parts.push(part)
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }
  async skip(count: number): Promise<boolean> {
    let left = count
    while (left > 0 && (await this.#fill())) {
      const part = Math.min(left, this.#piece.length)
      this.#piece = this.#piece.subarray(part)
      left -= part
    }
    return left === 0
  }
  async skipZeros(): Promise<boolean> {
    while (await this.#fill()) {
      const first = this.#piece.findIndex((byte) => byte !== 0)
      if (first >= 0) {
        this.#piece = this.#piece.subarray(first)
        return true
      }
      this.#piece = new Uint8Array()
    }
    return false
  }
  async close(): Promise<void> {
    await this.#source.return?.()
  }
  async #fill(): Promise<boolean> {
    while (this.#piece.length === 0) {
      const next = await this.#source.next()
      if (next.done) return false
      this.#piece = next.value
    }
    return true
  }
}
