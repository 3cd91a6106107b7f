import { nameOfBytes } from '../file-name.ts'
import { Metadata } from './metadata.ts'
import { refuse, type Superblock, viewOf } from './superblock.ts'

/** Source: Linux Documentation/filesystems/squashfs.rst, "Xattr table"; fs/squashfs/xattr.c. */
const TABLE_HEADER_BYTES = 16
const ENTRY_BYTES = 16
const ELSEWHERE = 0x100
const prefixes: readonly string[] = ['user.', 'trusted.', 'security.']
const MAX_VALUE_BYTES = 65_536
const MAX_TOTAL_BYTES = 2 ** 24
const MAX_REFERENCE = 2n ** 53n

/** The attributes of an index in their table. @throws ServiceError `invalid-image` */
export async function attributesAt(
  metadata: Metadata,
  superblock: Superblock,
  index: number,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const { attributeTable } = superblock
  if (attributeTable === null) throw refuse('malformed', `attributes ${index}, and there is no table of them`)
  const what = 'the table of attributes'
  const head = viewOf(await metadata.raw(attributeTable, TABLE_HEADER_BYTES, what))
  const [table, ids] = [head.getBigUint64(0, true), head.getUint32(8, true)]
  if (index >= ids || table > BigInt(attributeTable)) throw refuse('malformed', `attributes ${index}, of ${ids}`)
  const start = Number(table)
  const entry = viewOf(await metadata.entry(attributeTable + TABLE_HEADER_BYTES, index, ENTRY_BYTES, what))
  const cursor = metadata.cursor(placeOf(start, entry.getBigUint64(0, true)), what)
  const found = new Map<string, Uint8Array>()
  let bytes = 0
  for (let left = entry.getUint32(8, true); left > 0; left -= 1) {
    const view = viewOf(await cursor.take(4))
    const type = view.getUint16(0, true)
    const name = await cursor.take(view.getUint16(2, true))
    let valueBytes = viewOf(await cursor.take(4)).getUint32(0, true)
    let from = cursor
    if ((type & ELSEWHERE) !== 0) {
      from = metadata.cursor(placeOf(start, viewOf(await cursor.take(8)).getBigUint64(0, true)), what)
      valueBytes = viewOf(await from.take(4)).getUint32(0, true)
    }
    if (valueBytes > MAX_VALUE_BYTES)
      throw refuse('malformed', `an attribute of ${valueBytes} bytes; it is at most ${MAX_VALUE_BYTES}`)
    bytes += name.length + valueBytes + 8
    if (bytes > MAX_TOTAL_BYTES) throw refuse('too-many', `attributes ${index} have more than ${MAX_TOTAL_BYTES} bytes`)
    const value = await from.take(valueBytes)
    const prefix = prefixes[type % ELSEWHERE]
    if (prefix !== undefined) found.set(prefix + nameOfBytes(name), value) // the kernel passes over others
  }
  return found
}

function placeOf(table: number, reference: bigint) {
  if (reference >= MAX_REFERENCE) throw refuse('malformed', `an attribute at ${reference}`)
  return Metadata.place(table, Number(reference))
}
