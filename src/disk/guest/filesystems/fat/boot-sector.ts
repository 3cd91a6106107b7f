import { ServiceError } from '../../../../base/errors.ts'
import { bytes, type Parsed, struct, u8, u16le, u32le } from '../../../../base/struct.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'

/** BPB of FAT12, FAT16 and FAT32; little-endian. Source: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103), "Boot Sector and BPB". */
const fields = {
  jump: u8(0),
  oemName: bytes(3, 8),
  sectorBytes: u16le(11),
  clusterSectors: u8(13),
  reservedSectors: u16le(14),
  tables: u8(16),
  rootEntries: u16le(17), // 0 in FAT32
  sectors16: u16le(19), // 0: in the other
  media: u8(21),
  tableSectors16: u16le(22), // 0 in FAT32
  sectors32: u32le(32),
  ending: bytes(38, 16), // extended boot signature, serial, label: at 66 in FAT32
}
const record = struct('FAT boot sector', fields)
const fields32 = {
  tableSectors: u32le(36),
  flags: u16le(40), // bit 7: one table is in use, whose number is in bits 0 to 3
  version: u16le(42),
  rootCluster: u32le(44),
  infoSector: u16le(48),
  ending: bytes(66, 16),
}
const record32 = struct('FAT32 boot sector', fields32)
const NAMES = { old: 54, fat32: 82 } as const // where the name of the kind is
const SECTOR_BYTES = 512
const ENTRY_BYTES = 32
const MIN_MEDIA = 0xf8
const MEDIA_FLOPPY = 0xf0
const MAX_CLUSTERS_12 = 4084 // "FAT Type Determination": by the count of clusters, and nothing else
const MAX_CLUSTERS_16 = 65_524
const MAX_CLUSTERS_32 = 0x0ffffff5
const MAX_CLUSTER_BYTES = 256 * KiB // Windows' own limit with sectors of 4 KiB
const ONE_TABLE = 0x80
const SIGNATURE_SERIAL = 0x28
const SIGNATURE_ALL = 0x29

/** What met every limit. */
export interface BootSector {
  readonly kind: 12 | 16 | 32
  readonly sectorBytes: number
  readonly clusterBytes: number
  /** Of those that hold files: the first is number 2. */
  readonly clusters: number
  /** Bytes from the start of the volume: of the table that is in use, of the root of FAT12 and FAT16, of cluster 2. */
  readonly tableOffset: number
  readonly tableBytes: number
  readonly rootOffset: number
  readonly rootBytes: number
  readonly clustersOffset: number
  /** Of FAT32; 0: the root is not made of clusters. */
  readonly rootCluster: number
  /** Of FSInfo; 0: there is none. */
  readonly infoOffset: number
  readonly totalBytes: number
  readonly serial: number
  /** As it is in the boot sector, eleven bytes; the root may know better. */
  readonly label: Uint8Array | undefined
  /** The kernel's flag: mounted, and not unmounted. */
  readonly isMounted: boolean
  readonly notes: readonly string[]
}

export type Refusal = 'malformed' | 'truncated' | 'unknown-feature'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' ? 'unsupported' : 'invalid-image', `FAT: ${problem}`, {
    fileSystem: 'vfat',
    reason,
    ...details,
  })

/**
 * @returns undefined where there is no such file system: a sector that names itself FAT and breaks the format is damaged, one that does
 *   not is something else
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function readBootSector(volume: BlockSource): Promise<BootSector | undefined> {
  if (volume.size < SECTOR_BYTES) return undefined
  const sector = await volume.read(0, SECTOR_BYTES)
  const raw = record.parse(sector)
  if (!(raw.jump === 0xeb || raw.jump === 0xe9) || isOther(raw.oemName)) return undefined
  try {
    return checkedSector(sector, raw, volume.size)
  } catch (error) {
    if (isNamed(sector)) throw error
    return undefined
  }
}

const ascii = (input: Uint8Array, from: number, to: number) => Buffer.from(input.subarray(from, to)).toString('latin1')
const isOther = (oemName: Uint8Array): boolean => /^(?:NTFS {4}|EXFAT {3}|-FVE-FS-)/.test(ascii(oemName, 0, 8))
const isNamed = (sector: Uint8Array): boolean =>
  /^(?:FAT(?:12|16|32)? +|MSDOS|MSWIN)/.test(ascii(sector, NAMES.old, NAMES.old + 8)) ||
  /^(?:FAT32 +|MSWIN)/.test(ascii(sector, NAMES.fat32, NAMES.fat32 + 8))

function checkedSector(sector: Uint8Array, raw: Parsed<typeof fields>, volumeBytes: number): BootSector {
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', problem, { offset: 0 })
  }
  const { sectorBytes, clusterSectors, reservedSectors, tables, rootEntries, media } = raw
  check([512, 1024, 2048, 4096].includes(sectorBytes), `BPB_BytsPerSec is ${sectorBytes}; it is 512, 1024, 2048 or 4096`)
  check(Number.isInteger(Math.log2(clusterSectors)), `BPB_SecPerClus is ${clusterSectors}; it is a power of 2`)
  const clusterBytes = sectorBytes * clusterSectors
  check(clusterBytes <= MAX_CLUSTER_BYTES, `a cluster has ${clusterBytes} bytes; it has at most ${MAX_CLUSTER_BYTES}`)
  check(reservedSectors > 0, 'BPB_RsvdSecCnt is 0')
  check(tables >= 1 && tables <= 16, `BPB_NumFATs is ${tables}`)
  check(media >= MIN_MEDIA || media === MEDIA_FLOPPY, `BPB_Media is 0x${media.toString(16)}`)
  const is32 = raw.tableSectors16 === 0 // as the kernel tells it: the fields of FAT32 are there
  const raw32 = is32 ? record32.parse(sector) : undefined
  const tableSectors = raw32?.tableSectors ?? raw.tableSectors16
  const sectors = raw.sectors16 || raw.sectors32
  check(tableSectors > 0, 'BPB_FATSz16 and BPB_FATSz32 are 0')
  check(sectors > 0, 'BPB_TotSec16 and BPB_TotSec32 are 0')
  check(is32 || rootEntries > 0, 'BPB_RootEntCnt is 0')
  check(!is32 || rootEntries === 0, `BPB_RootEntCnt is ${rootEntries}; it is 0 in FAT32`)
  const rootSectors = Math.ceil((rootEntries * ENTRY_BYTES) / sectorBytes)
  const before = reservedSectors + tables * tableSectors + rootSectors
  check(before < sectors, `${before} sectors come before the first cluster, of ${sectors}`)
  const found = Math.floor((sectors - before) / clusterSectors)
  check(found > 0, 'there are no clusters')
  const kind = is32 ? 32 : found <= MAX_CLUSTERS_12 ? 12 : 16
  check(found <= (is32 ? MAX_CLUSTERS_32 : MAX_CLUSTERS_16), `there are ${found} clusters, which FAT${kind} cannot number`)
  const tableBytes = tableSectors * sectorBytes
  const numbered = Math.floor((tableBytes * 8) / (is32 ? 32 : kind)) - 2
  check(numbered > 0, `a table has ${tableBytes} bytes`)
  if (raw32 && raw32.version !== 0) throw refuse('unknown-feature', `BPB_FSVer is ${raw32.version}; 0 is known`, { offset: 42 })
  const active = raw32 && (raw32.flags & ONE_TABLE) !== 0 ? raw32.flags & 0xf : 0
  check(active < tables, `BPB_ExtFlags says that table ${active} is in use, of ${tables}`)
  const clusters = Math.min(found, numbered) // the kernel's own way with a table that is too small
  if (raw32) {
    const { rootCluster } = raw32
    check(rootCluster >= 2 && rootCluster < clusters + 2, `BPB_RootClus is ${rootCluster}, of ${clusters} clusters`)
  }
  const notes: string[] = []
  if (is32 && found <= MAX_CLUSTERS_16)
    notes.push(
      `it has the fields of FAT32 and ${found} clusters, so that some systems take it for FAT${found <= MAX_CLUSTERS_12 ? 12 : 16}`,
    )
  if (sectors * sectorBytes > volumeBytes)
    notes.push(`it has ${sectors * sectorBytes} bytes, and its volume ${volumeBytes}: it was cut off`)
  const ending = raw32?.ending ?? raw.ending
  const view = new DataView(ending.buffer, ending.byteOffset)
  const state = sector[is32 ? 65 : 37]!
  const signature = ending[0]!
  const hasSerial = signature === SIGNATURE_SERIAL || signature === SIGNATURE_ALL
  return {
    kind,
    sectorBytes,
    clusterBytes,
    clusters,
    tableOffset: (reservedSectors + active * tableSectors) * sectorBytes,
    tableBytes,
    rootOffset: is32 ? 0 : (reservedSectors + tables * tableSectors) * sectorBytes,
    rootBytes: rootEntries * ENTRY_BYTES,
    clustersOffset: before * sectorBytes,
    rootCluster: raw32?.rootCluster ?? 0,
    infoOffset: infoOffsetOf(raw32?.infoSector ?? 0, reservedSectors, sectorBytes),
    totalBytes: sectors * sectorBytes,
    serial: hasSerial ? view.getUint32(1, true) : 0,
    label: signature === SIGNATURE_ALL ? ending.subarray(5, 16) : undefined,
    isMounted: (state & 1) !== 0,
    notes,
  }
}

const infoOffsetOf = (sector: number, reserved: number, sectorBytes: number): number =>
  sector > 0 && sector < reserved ? sector * sectorBytes : 0
