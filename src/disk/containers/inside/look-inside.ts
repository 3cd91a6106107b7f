import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import type { Archive, Member } from '../archives/archive.ts'
import { bytesOf, partOf } from '../archives/part.ts'
import { listTar } from '../archives/tar.ts'
import { listZip } from '../archives/zip.ts'
import { type Compression, compressions, unpacked } from '../compression/unpacked.ts'
import { type Appliance, openOva, openOvfIn } from '../ova/open-ova.ts'
import { type Choice, chooseDisk, chooseMember, isDescriptor } from './choose.ts'
import { refuseInside } from './refusal.ts'

export interface InsideOptions {
  /** What the first and last bytes of a file say: `recognise` of `src/disk/formats`. */
  readonly recognise: (file: BlockSource) => Promise<Seen>
  /**
   * Keeps bytes that come once, so that any of them can be read: in a file without a name, say. What it gives is closed here.
   * @param about for messages, and for progress: the bytes that come, where they are known before
   */
  readonly keep: (
    bytes: AsyncIterable<Uint8Array>,
    about: { readonly what: string; readonly totalBytes: number | null },
  ) => Promise<BlockSource>
  /** Of all that is kept, of all layers together. */
  readonly maxBytes: number
  /** Of an archive: the member that is meant, by its whole name, or the last part of it; of an OVA, a disk's id as well. */
  readonly member?: string | undefined
  /** For messages: what chooses a member, as `--member NAME`. */
  readonly choosing: string
  readonly signal?: AbortSignal | undefined
}
export interface Seen {
  readonly found: readonly { readonly name: string; readonly kind: string }[]
}

/** What was around the file, one for each that was taken off. */
export interface Layer {
  readonly kind: Compression | Archive['kind'] | 'ova' | 'ovf'
  /** Of an archive, the member that lies inside. */
  readonly member?: string
}
export interface Inside {
  /** From the outside in; none: the file is in nothing. */
  readonly layers: readonly Layer[]
  /** Closing it closes all, the outermost file too. */
  readonly file: BlockSource
  /** The other files of a disk that is in several, by the names that its descriptor has for them. They are closed with `file`. */
  readonly parts: ReadonlyMap<string, BlockSource> | undefined
  /** The package that the file is a disk of. Its digests are not compared yet: `verify` does. */
  readonly appliance: Appliance | undefined
  /** What a descriptor says that the file is, in Glance's words; null: nothing. */
  readonly declaredFormat: string | null
}

/** A compressed disk in an OVA in a compressed tar has four. */
const MAX_LAYERS = 4
/** As in `unpacked`, of everything that comes out of the outermost file: layers multiply. */
const MAX_RATIO = 250
const FREE_BYTES = 256 * MiB

/**
 * What lies inside a file once compression and archives around it are taken off: `disk.vmdk` in an OVA, the one disk in a `tar.gz`.
 * A file in nothing comes back as it is. Members that lie plain in their archive are read where they are; compressed ones are kept by
 * `options.keep`, one file for each layer. Nothing is written under a name that an archive has. A file that is a disk format as well as
 * a wrapper is left as it is: recognising it says so.
 *
 * @param file stays open where this fails
 * @throws ServiceError `invalid-image` with `details.reason`: `nested` beyond four layers; `amplification` beyond 250 times the outermost
 *   file and 256 MiB; `several-disks` and `no-disk`, listing the members; and all of archives, compression and OVF. `unsupported` for
 *   wrappers that are known by name only. `not-found` for a member that is not there; `too-large`; `cancelled`; errors of `keep`
 */
export async function lookInside(file: BlockSource, options: InsideOptions): Promise<Inside> {
  await using looking = new Looking(file, options)
  while (await looking.peel());
  return looking.done()
}

class Looking {
  readonly layers: Layer[] = []
  readonly #outermost: BlockSource
  readonly #options: InsideOptions
  readonly #member: string | undefined
  /** Kept files that something is read from, closed in the end. */
  #kept: BlockSource[] = []
  #keptBytes = 0
  #file: BlockSource
  #parts: ReadonlyMap<string, BlockSource> | undefined
  #appliance: Appliance | undefined
  #declaredFormat: string | null = null
  #isChosen = false

  constructor(file: BlockSource, options: InsideOptions) {
    this.#outermost = file
    this.#file = file
    this.#options = options
    this.#member = options.member
  }

  /** Takes one layer off. @returns whether there was one */
  async peel(): Promise<boolean> {
    const wrapper = await this.#wrapper()
    if (wrapper === undefined) return false
    if (this.layers.length >= MAX_LAYERS) {
      const problem = `more than ${MAX_LAYERS} layers of compression and archives are around it; pack it once`
      throw refuseInside('nested', problem, { max: MAX_LAYERS })
    }
    if ((compressions as readonly string[]).includes(wrapper)) await this.#unpack(wrapper as Compression)
    else if (wrapper === 'ova') await this.#chooseFrom('ova', await openOva(this.#file))
    else if (wrapper === 'tar') await this.#open(await listTar(this.#file))
    else if (wrapper === 'zip') await this.#open(await listZip(this.#file))
    else {
      const known = [...compressions, 'zip', 'tar'].join(', ')
      const problem = `the file is packed by ${wrapper}, which is not taken: pack it by ${known}, or not at all`
      throw new ServiceError('unsupported', problem, { format: wrapper, reason: 'unsupported' })
    }
    return true
  }

  done(): Inside {
    if (this.#member !== undefined && !this.#isChosen) {
      const problem = `${this.#options.choosing} chooses a member of an archive, and the file is none`
      throw new ServiceError('invalid-request', problem)
    }
    const [inner, outermost, kept] = [this.#file, this.#outermost, this.#kept]
    this.#kept = []
    const isBare = inner === outermost
    return {
      layers: this.layers,
      file: isBare
        ? outermost
        : {
            size: inner.size,
            read: (offset, length, into) => inner.read(offset, length, into),
            extents: (offset, length) => inner.extents(offset, length),
            async close() {
              await Promise.all([outermost.close(), ...kept.map((each) => each.close())])
            },
          },
      parts: this.#parts,
      appliance: this.#appliance,
      declaredFormat: this.#declaredFormat,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#kept.map((each) => each.close()))
  }

  async #wrapper(): Promise<string | undefined> {
    const { found } = await this.#options.recognise(checked(this.#file, 'file'))
    if (this.#parts !== undefined || found.some(({ kind }) => kind === 'disk')) return undefined
    const wrappers = found.filter(({ kind }) => kind === 'wrapper').map(({ name }) => name)
    if (wrappers.length <= 1) return wrappers[0]
    const names = wrappers.join(', ')
    throw refuseInside('multiple-formats', `it is ${names} at once, so that programs would disagree about what it holds`, {
      found: names,
    })
  }

  async #unpack(compression: Compression): Promise<void> {
    const { signal } = this.#options
    const inner = await unpacked(bytesOf(this.#file, { signal }), { maxBytes: Number.MAX_SAFE_INTEGER })
    this.layers.push({ kind: compression })
    const before = [...this.#kept]
    this.#file = await this.#keep(inner.bytes, `the ${compression} file`, null)
    if (this.#appliance) return // which can be verified still
    this.#kept = this.#kept.filter((each) => !before.includes(each))
    await Promise.all(before.map((each) => each.close()))
  }

  /** An archive, or a package of OVF in one. */
  async #open(archive: Archive): Promise<void> {
    if (archive.members.some(isDescriptor)) {
      this.layers.push({ kind: archive.kind })
      return this.#chooseFrom('ovf', await openOvfIn(archive.members))
    }
    const choice = await chooseMember(archive, this.#wish())
    this.#note(choice)
    this.layers.push({ kind: archive.kind, member: choice.member.name })
    const [file, ...parts] = await this.#placed([choice.member, ...choice.parts.values()])
    this.#file = file as BlockSource
    const names = [...choice.parts.keys()]
    if (names.length > 0) this.#parts = new Map(names.map((name, at) => [name, parts[at] as BlockSource]))
  }

  async #chooseFrom(kind: 'ova' | 'ovf', appliance: Appliance): Promise<void> {
    const choice = chooseDisk(appliance, this.#wish())
    if (choice.isWished) this.#isChosen = true
    const { file, diskFormat } = choice.disk
    this.#appliance = appliance
    this.#declaredFormat = diskFormat
    this.layers.push({ kind, member: file.name })
    if (file.isPlain) this.#file = file.open()
    else {
      const { signal } = this.#options
      this.#file = await this.#keep(file.stream({ signal, maxBytes: Number.MAX_SAFE_INTEGER }), `"${file.name}"`, null)
    }
  }

  #wish() {
    const { recognise, choosing } = this.#options
    return { recognise, choosing, member: this.#isChosen ? undefined : this.#member }
  }
  #note({ isWished }: Choice): void {
    if (isWished) this.#isChosen = true
  }

  /** Members as files: where they are, or one after the other in one file that is kept. */
  async #placed(members: readonly Member[]): Promise<BlockSource[]> {
    const packed = members.filter(({ isPlain }) => !isPlain)
    const { signal } = this.#options
    const all = async function* () {
      for (const member of packed) yield* member.stream({ signal })
    }
    const totalBytes = packed.reduce((sum, { bytes }) => sum + bytes, 0)
    const [first, ...more] = packed
    const what = `"${first?.name}"${more.length > 0 ? ` and its ${more.length} parts` : ''}`
    const kept = first && (await this.#keep(all(), what, totalBytes))
    let at = 0
    return members.map((member) => {
      if (member.isPlain || !kept) return member.open()
      at += member.bytes
      return partOf(kept, at - member.bytes, member.bytes)
    })
  }

  async #keep(bytes: AsyncIterable<Uint8Array>, what: string, totalBytes: number | null): Promise<BlockSource> {
    const kept = await this.#options.keep(this.#counted(bytes, what), { what, totalBytes })
    this.#kept.push(kept)
    return kept
  }

  async *#counted(bytes: AsyncIterable<Uint8Array>, what: string): AsyncGenerator<Uint8Array, void, undefined> {
    const { maxBytes, signal } = this.#options
    for await (const piece of bytes) {
      if (signal?.aborted) throw new ServiceError('cancelled', 'the reading was cancelled')
      this.#keptBytes += piece.length
      if (this.#keptBytes > maxBytes)
        throw new ServiceError('too-large', `${what} and what is around it hold more than ${maxBytes} bytes`, { maxBytes })
      if (this.#keptBytes > FREE_BYTES && this.#keptBytes > this.#outermost.size * MAX_RATIO) {
        const problem = `${this.#keptBytes} bytes came out of ${this.#outermost.size}, more than ${MAX_RATIO} times as much: this is no image of a disk in use`
        throw refuseInside('amplification', problem, { amplification: Math.round(this.#keptBytes / this.#outermost.size) })
      }
      yield piece
    }
  }
}
