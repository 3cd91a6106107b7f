import { MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { refuse } from './language-reader.ts'

/** A named part of a program. */
export interface Section {
  readonly name: string
  /** In memory; 0 where it is not loaded. */
  readonly address: number
  readonly offset: number
  readonly bytes: number
}

const MAGIC = '\x7fELF'
const HEAD_BYTES = 64
const MAX_SECTIONS = 4096 // real programs have about 40; -ffunction-sections ends at the linker
const MAX_NAMES_BYTES = MiB
const NO_BITS = 8

/**
 * The sections of an ELF file that have bytes in it; none where it is no ELF or has been stripped of their table. Source: System V ABI, "Sections".
 * @throws ServiceError `invalid-image` where the table is not in the file
 */
export async function sectionsOf(file: BlockSource): Promise<readonly Section[]> {
  if (file.size < HEAD_BYTES) return []
  const head = await file.read(0, HEAD_BYTES)
  if (Buffer.from(head.buffer, head.byteOffset, 4).toString('latin1') !== MAGIC) return []
  const [is64, isLittle] = [head[4] === 2, head[5] === 1]
  const view = new DataView(head.buffer, head.byteOffset, HEAD_BYTES)
  const word = (of: DataView, at: number) => (is64 ? Number(of.getBigUint64(at, isLittle)) : of.getUint32(at, isLittle))
  const table = word(view, is64 ? 40 : 32)
  const [entryBytes, count, namesIndex] = [0, 2, 4].map((at) => view.getUint16((is64 ? 58 : 46) + at, isLittle)) as [
    number,
    number,
    number,
  ]
  if (table === 0 || count === 0) return []
  if (entryBytes !== (is64 ? 64 : 40)) throw refuse(`its e_shentsize is ${entryBytes}`)
  if (count > MAX_SECTIONS || namesIndex >= count) throw refuse(`it has ${count} sections, and their names are in ${namesIndex}`)
  assertWithin(file, table, count * entryBytes)
  const bytes = await file.read(table, count * entryBytes)
  const entries = Array.from({ length: count }, (_, index) => {
    const entry = new DataView(bytes.buffer, bytes.byteOffset + index * entryBytes, entryBytes)
    return {
      nameAt: entry.getUint32(0, isLittle),
      type: entry.getUint32(4, isLittle),
      address: word(entry, is64 ? 16 : 12),
      offset: word(entry, is64 ? 24 : 16),
      bytes: word(entry, is64 ? 32 : 20),
    }
  })
  const namesAt = entries[namesIndex]!
  if (namesAt.bytes > MAX_NAMES_BYTES) throw refuse(`the names of its sections have ${namesAt.bytes} bytes`)
  assertWithin(file, namesAt.offset, namesAt.bytes)
  const names = Buffer.from(await file.read(namesAt.offset, namesAt.bytes))
  return entries
    .filter(({ type, offset, bytes: long }) => type !== NO_BITS && isWithin(file, offset, long))
    .map(({ nameAt, ...rest }) => {
      const end = names.indexOf(0, nameAt)
      return { name: names.toString('latin1', nameAt, Math.min(end < 0 ? names.length : end, nameAt + 64)), ...rest }
    })
}

const isWithin = (file: BlockSource, offset: number, bytes: number): boolean =>
  Number.isSafeInteger(offset) && Number.isSafeInteger(bytes) && offset + bytes <= file.size

function assertWithin(file: BlockSource, offset: number, bytes: number): void {
  if (!isWithin(file, offset, bytes)) throw refuse(`its sections are at ${offset}, ${bytes} bytes, and it has ${file.size}`)
}
