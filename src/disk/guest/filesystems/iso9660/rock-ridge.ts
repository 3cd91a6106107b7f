import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { nameOfBytes } from '../file-name.ts'
import { refuse, type Tree } from './descriptors.ts'
import { longTimeNs, shortTimeNs } from './time.ts'

/** Sources: IEEE P1281 (SUSP) 1.12 and P1282 (Rock Ridge) 1.12, with zisofs' ZF. */
const MAX_CONTINUATIONS = 32 // the kernel's RR_MAX_CE_ENTRIES: an area that leads to itself ends here
const MAX_NAME_BYTES = 1024
const MAX_LINK_BYTES = 4 * KiB
const SKIPPED_OF_XA = 14
const NAME = { goesOn: 1, dots: 6 } as const
const COMPONENT = { goesOn: 1, here: 2, above: 4, root: 8 } as const
const TIME = { modified: 1, changed: 3, kinds: 7, isLong: 0x80 } as const

/** What the entries of one record say. */
export interface RockRidge {
  name?: string
  mode?: number
  links?: number
  uid?: number
  gid?: number
  device?: { readonly major: number; readonly minor: number }
  target?: string
  modifiedNs?: bigint | null
  changedNs?: bigint | null
  /** Block of a directory that was moved to here's end of the tree. */
  childBlock?: number
  /** It was moved, and is shown where it came from. */
  isMoved?: boolean
  /** Bytes, once unpacked. */
  packed?: { readonly algorithm: string; readonly bytes: number }
  isSparse?: boolean
}

interface Entry {
  readonly kind: string
  /** From its signature on. */
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** How many bytes come before the entries in every record, where there are any: what the root's own record says. Undefined: no Rock Ridge. */
export async function skippedBytes(volume: BlockSource, tree: Tree, rootSystemUse: Uint8Array): Promise<number | undefined> {
  for (const at of [0, SKIPPED_OF_XA]) {
    const found = rootSystemUse.subarray(at, at + 7)
    const isSp = found.length === 7 && found[0] === 0x53 && found[1] === 0x50 && found[4] === 0xbe && found[5] === 0xef
    if (!isSp) continue
    for await (const { kind } of entriesOf(volume, tree, rootSystemUse.subarray(at))) {
      if (kind === 'RR' || kind === 'PX' || kind === 'NM' || kind === 'ER') return found[6]!
    }
  }
  return undefined
}

/** The entries, those in other places among them. @throws ServiceError `invalid-image` at the first that breaks the format */
async function* entriesOf(volume: BlockSource, tree: Tree, systemUse: Uint8Array): AsyncGenerator<Entry> {
  let area = systemUse
  for (let areas = 0; ; areas += 1) {
    if (areas > MAX_CONTINUATIONS) throw refuse('malformed', `more than ${MAX_CONTINUATIONS} continuation areas`)
    const view = new DataView(area.buffer, area.byteOffset, area.byteLength)
    let next: { offset: number; length: number } | undefined
    for (let at = 0; at + 4 <= area.length; ) {
      const length = area[at + 2]!
      const kind = String.fromCharCode(area[at]!, area[at + 1]!)
      if (kind === 'ST' || area[at] === 0) break
      if (length < 4 || at + length > area.length)
        throw refuse('malformed', `a system use entry of ${length} bytes, where ${area.length - at} are left`)
      if (kind === 'CE' && length >= 28) {
        const offset = view.getUint32(at + 4, true) * tree.blockBytes + view.getUint32(at + 12, true)
        next = { offset, length: view.getUint32(at + 20, true) }
      } else yield { kind, bytes: area.subarray(at, at + length), view: new DataView(area.buffer, area.byteOffset + at, length) }
      at += length
    }
    if (!next) return
    if (next.length > 2 * KiB) throw refuse('malformed', `a continuation area of ${next.length} bytes`, { offset: next.offset })
    if (next.offset + next.length > volume.size)
      throw refuse('truncated', 'a continuation area lies beyond the end of the volume', { offset: next.offset })
    area = await volume.read(next.offset, next.length)
  }
}

/** What Rock Ridge says of a record. @throws ServiceError `invalid-image` */
export async function rockRidge(volume: BlockSource, tree: Tree, systemUse: Uint8Array): Promise<RockRidge> {
  const found: RockRidge = {}
  const names: Uint8Array[] = []
  let nameBytes = 0
  const link = new LinkTarget()
  for await (const { kind, bytes, view } of entriesOf(volume, tree, systemUse)) {
    const number = (at: number) => (at + 4 <= bytes.length ? view.getUint32(at, true) : 0)
    if (kind === 'NM' && bytes.length > 4 && (bytes[4]! & NAME.dots) === 0) {
      nameBytes += bytes.length - 5
      if (nameBytes > MAX_NAME_BYTES) throw refuse('malformed', `a name of more than ${MAX_NAME_BYTES} bytes`)
      names.push(bytes.subarray(5))
    } else if (kind === 'PX') {
      found.mode = number(4)
      found.links = number(12)
      found.uid = number(20)
      found.gid = number(28)
    } else if (kind === 'PN') found.device = deviceOf(number(4), number(12))
    else if (kind === 'SL') link.add(bytes)
    else if (kind === 'TF') readTimes(bytes, view, found)
    else if (kind === 'CL') found.childBlock = number(4)
    else if (kind === 'RE') found.isMoved = true
    else if (kind === 'SF') found.isSparse = true
    else if (kind === 'ZF') found.packed = { algorithm: Buffer.from(bytes.subarray(4, 6)).toString('latin1'), bytes: number(8) }
  }
  if (names.length > 0) found.name = nameOfBytes(Buffer.concat(names))
  if (link.isThere) found.target = nameOfBytes(link.bytes())
  return found
}

/** Both words, or all of it in the lower one: the kernel's own guess. */
const deviceOf = (high: number, low: number): { major: number; minor: number } =>
  high === 0 && low > 0xff ? { major: low >>> 8, minor: low & 0xff } : { major: high, minor: low }

function readTimes(bytes: Uint8Array, view: DataView, found: RockRidge): void {
  const flags = bytes[4] ?? 0
  const width = (flags & TIME.isLong) !== 0 ? 17 : 7
  for (let kind = 0, at = 5; kind < TIME.kinds && at + width <= bytes.length; kind += 1) {
    if ((flags & (1 << kind)) === 0) continue
    const time = width === 7 ? shortTimeNs(view, at) : longTimeNs(bytes.subarray(at, at + width))
    if (kind === TIME.modified) found.modifiedNs = time
    if (kind === TIME.changed) found.changedNs = time
    at += width
  }
}

/** The parts of a symbolic link, which may be cut anywhere. */
class LinkTarget {
  isThere = false
  readonly #pieces: Uint8Array[] = []
  #bytes = 0
  /** A separator comes before the next component. */
  #needsSlash = false

  add(entry: Uint8Array): void {
    this.isThere = true
    for (let at = 5; at + 2 <= entry.length; ) {
      const flags = entry[at]!
      const end = at + 2 + entry[at + 1]!
      if (end > entry.length)
        throw refuse('malformed', `a component of a symbolic link that ends at ${end}, of ${entry.length} bytes`)
      if (this.#needsSlash) this.#push(SLASH)
      if ((flags & COMPONENT.root) !== 0) this.#push(SLASH)
      else if ((flags & COMPONENT.here) !== 0) this.#push(DOTS.subarray(0, 1))
      else if ((flags & COMPONENT.above) !== 0) this.#push(DOTS)
      else this.#push(entry.subarray(at + 2, end))
      this.#needsSlash = (flags & (COMPONENT.goesOn | COMPONENT.root)) === 0
      at = end
    }
  }

  #push(piece: Uint8Array): void {
    this.#bytes += piece.length
    if (this.#bytes > MAX_LINK_BYTES) throw refuse('malformed', `a symbolic link of more than ${MAX_LINK_BYTES} bytes`)
    this.#pieces.push(piece)
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#pieces)
  }
}

const SLASH = Buffer.from('/')
const DOTS = Buffer.from('..')
