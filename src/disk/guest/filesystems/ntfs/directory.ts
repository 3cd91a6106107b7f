import { isServiceError } from '../../../../base/errors.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { nameOfUnits } from '../file-name.ts'
import { type BootSector, refuse } from './boot-sector.ts'
import { referenceAt, restored, unitsAt, viewOf } from './record.ts'

/** The index of names of a directory, $I30: a B-tree. Source: the Linux-NTFS project, "NTFS Documentation", Index Records. */
const ENTRY = { subnode: 1, last: 2 } as const
const ENTRY_BYTES = 16
const NAME_BYTES = 66 // what comes before a name in its attribute
const FILE_NAME = 0x30
const ROOT_HEADER_AT = 16
const BLOCK_HEADER_AT = 24
const MAX_DEPTH = 32
const SECTOR_BYTES = 512
export const DOS_NAMES = 2

export interface IndexEntry {
  readonly units: Uint16Array
  readonly namespace: number
  readonly record: number
  readonly sequence: number
  /** Of the file, when it was last closed. */
  readonly flags: number
}

interface Slot {
  readonly entry: IndexEntry | undefined
  /** What comes before it. */
  readonly child: number | undefined
}

export interface NameIndex {
  /** All, in order; those of blocks that are damaged are left out, and then it throws. */
  all(): AsyncGenerator<IndexEntry>
  /** Those that are met on the way to where a name is, of which it is one if it is there. @param order of a name to an entry's */
  way(order: (units: Uint16Array) => number): AsyncGenerator<IndexEntry>
}

/** @param root value of the index's root @param blocks its other nodes, where it has any @throws ServiceError `invalid-image` */
export function nameIndex(root: Uint8Array, blocks: BlockSource | undefined, boot: BootSector, record: number): NameIndex {
  const bad = (problem: string) => refuse('malformed', `the directory in file record ${record}: ${problem}`, { record })
  if (root.length < ROOT_HEADER_AT + 16) throw bad(`an index root of ${root.length} bytes`)
  const view = viewOf(root)
  if (view.getUint32(0, true) !== FILE_NAME) throw bad('an index that is not of names')
  const blockBytes = view.getUint32(8, true)
  if (!Number.isInteger(Math.log2(blockBytes)) || blockBytes < SECTOR_BYTES || blockBytes > 65_536)
    throw bad(`index blocks of ${blockBytes} bytes`)
  const unitBytes = boot.clusterBytes <= blockBytes ? boot.clusterBytes : SECTOR_BYTES
  const most = Math.floor((blocks?.size ?? 0) / blockBytes)

  const block = async (vcn: number): Promise<readonly Slot[]> => {
    const offset = vcn * unitBytes
    if (!blocks || !Number.isSafeInteger(offset) || offset % blockBytes !== 0 || offset + blockBytes > blocks.size)
      throw bad(`there is no index block ${vcn}`)
    const made = restored(await blocks.read(offset, blockBytes), 'INDX', `index block ${vcn} of file record ${record}`)
    if (viewOf(made).getBigUint64(16, true) !== BigInt(vcn)) throw bad(`index block ${vcn} is another one`)
    return slotsOf(made, BLOCK_HEADER_AT, bad)
  }
  const top = slotsOf(root, ROOT_HEADER_AT, bad)

  return {
    async *all() {
      const seen = new Set<number>()
      let damage: unknown
      const above: { readonly slots: readonly Slot[]; at: number; isBelowDone: boolean }[] = [
        { slots: top, at: 0, isBelowDone: false },
      ]
      while (above.length > 0) {
        const here = above.at(-1)!
        const slot = here.slots[here.at]
        if (!slot) {
          above.pop()
          continue
        }
        if (slot.child !== undefined && !here.isBelowDone) {
          here.isBelowDone = true
          try {
            if (seen.has(slot.child) || seen.size >= most || above.length > MAX_DEPTH)
              throw bad(`index block ${slot.child} is met twice, or too deep`)
            seen.add(slot.child)
            above.push({ slots: await block(slot.child), at: 0, isBelowDone: false })
          } catch (error) {
            if (!isServiceError(error)) throw error
            damage ??= error
          }
          continue
        }
        here.at += 1
        here.isBelowDone = false
        if (slot.entry) yield slot.entry
      }
      if (damage) throw damage
    },

    async *way(order) {
      let slots = top
      for (let depth = 0; ; depth += 1) {
        if (depth > MAX_DEPTH) throw bad(`an index more than ${MAX_DEPTH} deep`)
        let next: number | undefined
        for (const { entry, child } of slots) {
          const place = entry ? order(entry.units) : -1
          if (entry) yield entry
          next = child
          if (place <= 0) break
        }
        if (next === undefined) return
        slots = await block(next)
      }
    },
  }
}

function slotsOf(node: Uint8Array, headerAt: number, bad: (problem: string) => Error): readonly Slot[] {
  const view = viewOf(node)
  const end = headerAt + view.getUint32(headerAt + 4, true)
  if (end > node.length) throw bad(`entries that end at ${end}, of ${node.length} bytes`)
  const slots: Slot[] = []
  for (let at = headerAt + view.getUint32(headerAt, true); ; ) {
    if (at + ENTRY_BYTES > end) throw bad('entries without a last one')
    const bytes = view.getUint16(at + 8, true)
    const keyBytes = view.getUint16(at + 10, true)
    const flags = view.getUint16(at + 12, true)
    const hasChild = (flags & ENTRY.subnode) !== 0
    if (bytes < ENTRY_BYTES + (hasChild ? 8 : 0) || bytes % 8 !== 0 || at + bytes > end) throw bad(`an entry of ${bytes} bytes`)
    const child = hasChild ? Number(view.getBigUint64(at + bytes - 8, true)) : undefined
    if ((flags & ENTRY.last) !== 0) {
      slots.push({ entry: undefined, child })
      return slots
    }
    const isWhole = keyBytes >= NAME_BYTES && ENTRY_BYTES + keyBytes <= bytes
    const units = isWhole ? view.getUint8(at + ENTRY_BYTES + 64) : 0
    if (!isWhole || NAME_BYTES + units * 2 > keyBytes) throw bad(`an entry of ${bytes} bytes with a key of ${keyBytes}`)
    const key = at + ENTRY_BYTES
    const { number, sequence } = referenceAt(view, at)
    slots.push({
      entry: {
        units: unitsAt(view, key + NAME_BYTES, units),
        namespace: view.getUint8(key + 65),
        record: number,
        sequence,
        flags: view.getUint32(key + 56, true),
      },
      child,
    })
    at += bytes
  }
}

/** Which name comes first: by the volume's capitals, then as they are. */
export function compareNames(a: Uint16Array, b: Uint16Array, capitals: Uint16Array): number {
  return compareUnits(a, b, (unit) => capitals[unit]!) || compareUnits(a, b, (unit) => unit)
}

export const isSameName = (a: Uint16Array, b: Uint16Array, capitals: Uint16Array): boolean =>
  a.length === b.length && compareUnits(a, b, (unit) => capitals[unit]!) === 0

function compareUnits(a: Uint16Array, b: Uint16Array, of: (unit: number) => number): number {
  for (let at = 0; at < a.length && at < b.length; at += 1) {
    const difference = of(a[at]!) - of(b[at]!)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

export const textOf = ({ units }: IndexEntry): string => nameOfUnits(units)
