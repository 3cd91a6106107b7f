import { isServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { type Gpt, readGpt } from './gpt.ts'
import { readMbr } from './mbr.ts'
import { gptTypeName, mbrTypeName } from './type-names.ts'

export interface PartitionTable {
  readonly scheme: 'gpt' | 'mbr'
  readonly sectorBytes: number
  /** In the order of the table. */
  readonly partitions: readonly Partition[]
  /** What is odd about it, a sentence each. */
  readonly notes: readonly string[]
}
export interface Partition {
  readonly number: number
  /** Bytes of the disk, as `length`. It may reach beyond the disk's end: then a note says so. */
  readonly offset: number
  readonly length: number
  /** GUID, or `0x83`. */
  readonly type: string
  /** `Linux`, `EFI system` …; null where it is not known. */
  readonly typeName: string | null
  /** Written by whoever made the disk; empty: none. */
  readonly name: string
  /** `PARTUUID`, as Linux gives it: of a GPT its GUID, of an MBR the signature of the disk and the number. */
  readonly id: string
}

/** What a disk is divided into. Undefined where it is not divided. Reads at most 1 MiB and 256 sectors; a table that is damaged is a note. */
export async function readPartitions(disk: Pick<BlockSource, 'size' | 'read'>): Promise<PartitionTable | undefined> {
  try {
    const gpt = await readGpt(disk)
    if (gpt) return withOddities(ofGpt(gpt), disk.size)
  } catch (error) {
    if (!isServiceError(error, 'invalid-image')) throw error
    return { scheme: 'gpt', sectorBytes: 512, partitions: [], notes: [error.message] }
  }
  const mbr = await readMbr(disk)
  if (!mbr) return undefined
  const partitions = mbr.partitions.map(
    ({ number, type, firstLba, sectors }): Partition => ({
      number,
      offset: firstLba * 512,
      length: sectors * 512,
      type: `0x${type.toString(16).padStart(2, '0')}`,
      typeName: mbrTypeName(type),
      name: '',
      id: `${mbr.signature}-${number.toString(16).padStart(2, '0')}`,
    }),
  )
  return withOddities({ scheme: 'mbr', sectorBytes: 512, partitions, notes: mbr.notes }, disk.size)
}

/** UEFI 2.10, section 5.3.3, table 5.6: type, id, first and last block, attributes, name in UTF-16. */
function ofGpt({ sectorBytes, entries, header }: Gpt): PartitionTable {
  const table = Buffer.from(entries.buffer, entries.byteOffset, header.entryCount * header.entryBytes)
  const partitions: Partition[] = []
  const notes: string[] = []
  for (let index = 0; index < header.entryCount; index += 1) {
    const entry = table.subarray(index * header.entryBytes, (index + 1) * header.entryBytes)
    const type = guidOf(entry)
    if (type === NO_TYPE) continue
    const first = Number(entry.readBigUInt64LE(32))
    const last = Number(entry.readBigUInt64LE(40)) // below 2^53: the reader of the table says so
    if (last < first) {
      notes.push(`partition ${index + 1} ends before it begins`)
      continue
    }
    partitions.push({
      number: index + 1,
      offset: first * sectorBytes,
      length: (last - first + 1) * sectorBytes,
      type,
      typeName: gptTypeName(type),
      name: entry.toString('utf16le', 56, 128).split('\0')[0]!,
      id: guidOf(entry.subarray(16)),
    })
  }
  return { scheme: 'gpt', sectorBytes, partitions, notes }
}

const NO_TYPE = '00000000-0000-0000-0000-000000000000'

/** The first three groups are little-endian: UEFI 2.10, appendix A. */
function guidOf(bytes: Buffer): string {
  const first = [bytes.readUInt32LE(0), bytes.readUInt16LE(4), bytes.readUInt16LE(6)]
  const [a, b, c] = first.map((value, index) => value.toString(16).padStart(index === 0 ? 8 : 4, '0'))
  return [a, b, c, bytes.toString('hex', 8, 10), bytes.toString('hex', 10, 16)].join('-')
}

function withOddities(table: PartitionTable, diskBytes: number): PartitionTable {
  const notes = [...table.notes]
  const isContainer = ({ type }: Partition) => ['0x05', '0x0f', '0x85'].includes(type)
  const plain = table.partitions.filter((one) => !isContainer(one)).sort((a, b) => a.offset - b.offset)
  for (const [index, { number, offset, length }] of plain.entries()) {
    if (offset + length > diskBytes) notes.push(`partition ${number} ends beyond the disk`)
    const next = plain[index + 1]
    if (next && next.offset < offset + length) notes.push(`partitions ${number} and ${next.number} overlap`)
  }
  return { ...table, notes }
}
