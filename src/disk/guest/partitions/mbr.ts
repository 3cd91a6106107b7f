import type { BlockSource } from '../../block/block-source.ts'

/** Boot record of an MBR disk; little-endian. Source: UEFI 2.10, section 5.2.1, table 5.1; 5.2.2 for the bytes of an entry. */
const SECTOR_BYTES = 512
const DISK_SIGNATURE_OFFSET = 440
const ENTRIES_OFFSET = 446
const ENTRY_BYTES = 16
const ENTRIES = 4
const SIGNATURE_OFFSET = 510
const FLAG_ACTIVE = 0x80
const EXTENDED: readonly number[] = [0x05, 0x0f, 0x85]
const TYPE_PROTECTIVE = 0xee
/** Records of a chain of logical partitions: it may lead in a circle. Linux takes 255 partitions of a disk. */
const MAX_LOGICAL = 255

export interface MbrPartition {
  /** 1 to 4; logical ones from 5 on. */
  readonly number: number
  readonly type: number
  readonly isActive: boolean
  readonly firstLba: number
  readonly sectors: number
}
export interface Mbr {
  /** Of the disk, eight hexadecimal digits. */
  readonly signature: string
  readonly partitions: readonly MbrPartition[]
  /** What is odd, a sentence each. */
  readonly notes: readonly string[]
}

interface Entry {
  readonly flag: number
  readonly type: number
  readonly firstLba: number
  readonly sectors: number
}

/**
 * The partitions of a disk in the manner of the PC. Reads the first sector, and one for each logical partition.
 * @returns undefined where there is no table: also where the first sector is that of a file system, which carries the same signature
 */
export async function readMbr(disk: Pick<BlockSource, 'size' | 'read'>): Promise<Mbr | undefined> {
  const entries = await entriesAt(disk, 0)
  if (!entries) return undefined
  const used = entries.filter(({ type }) => type !== 0)
  const isTable = used.length > 0 && entries.every(({ flag }) => flag === 0 || flag === FLAG_ACTIVE)
  if (!isTable || used.some(({ firstLba, sectors }) => firstLba === 0 || sectors === 0)) return undefined
  const signature = await signatureOf(disk)
  if (used.some(({ type }) => type === TYPE_PROTECTIVE))
    return { signature, partitions: [], notes: ['it only stands before a GPT'] }
  const partitions: MbrPartition[] = []
  const notes: string[] = []
  for (const [index, entry] of entries.entries()) {
    if (entry.type === 0) continue
    partitions.push(partitionOf(entry, index + 1, 0))
  }
  const extended = partitions.find(({ type }) => EXTENDED.includes(type))
  if (extended) await addLogical(disk, extended, partitions, notes)
  return { signature, partitions, notes }
}

async function signatureOf(disk: Pick<BlockSource, 'read'>): Promise<string> {
  const bytes = Buffer.from(await disk.read(DISK_SIGNATURE_OFFSET, 4))
  return bytes.readUInt32LE().toString(16).padStart(8, '0')
}

const partitionOf = ({ flag, type, firstLba, sectors }: Entry, number: number, base: number): MbrPartition => ({
  number,
  type,
  isActive: flag === FLAG_ACTIVE,
  firstLba: base + firstLba,
  sectors,
})

/** A chain of boot records: the first entry is a partition, relative to its record; the second the next record, relative to the first. */
async function addLogical(
  disk: Pick<BlockSource, 'size' | 'read'>,
  extended: MbrPartition,
  partitions: MbrPartition[],
  notes: string[],
): Promise<void> {
  let record = extended.firstLba
  for (let count = 0; count < MAX_LOGICAL; count += 1) {
    const entries = await entriesAt(disk, record)
    if (!entries) return void notes.push(`the chain of logical partitions leads to sector ${record}, where no record is`)
    const [partition, next] = entries
    if (partition && partition.type !== 0) partitions.push(partitionOf(partition, ENTRIES + 1 + count, record))
    if (!next || !EXTENDED.includes(next.type) || next.firstLba === 0) return
    const following = extended.firstLba + next.firstLba
    if (following <= record) return void notes.push('the chain of logical partitions leads back')
    record = following
  }
  notes.push(`there are more than ${MAX_LOGICAL} logical partitions`)
}

async function entriesAt(disk: Pick<BlockSource, 'size' | 'read'>, lba: number): Promise<readonly Entry[] | undefined> {
  const offset = lba * SECTOR_BYTES
  if (offset + SECTOR_BYTES > disk.size) return undefined
  const sector = await disk.read(offset, SECTOR_BYTES)
  const view = new DataView(sector.buffer, sector.byteOffset, sector.byteLength)
  if (view.getUint16(SIGNATURE_OFFSET) !== 0x55aa) return undefined
  return Array.from({ length: ENTRIES }, (_, index) => {
    const at = ENTRIES_OFFSET + index * ENTRY_BYTES
    return {
      flag: view.getUint8(at),
      type: view.getUint8(at + 4),
      firstLba: view.getUint32(at + 8, true),
      sectors: view.getUint32(at + 12, true),
    }
  })
}
