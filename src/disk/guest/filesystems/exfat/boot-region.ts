import { isServiceError, ServiceError } from '../../../../base/errors.ts'
import { bytes, struct, u8, u16le, u32le, u64le } from '../../../../base/struct.ts'
import type { BlockSource } from '../../../block/block-source.ts'

/** Main boot sector; little-endian. Source: Microsoft, "exFAT file system specification", section 3.1. Offsets and lengths are in sectors. */
const record = struct('exFAT boot sector', {
  name: bytes(3, 8),
  mustBeZero: bytes(11, 53),
  volumeSectors: u64le(72),
  tableSector: u32le(80),
  tableSectors: u32le(84),
  heapSector: u32le(88),
  clusters: u32le(92),
  rootCluster: u32le(96),
  serial: u32le(100),
  revision: u16le(104),
  flags: u16le(106),
  sectorShift: u8(108), // log2 of bytes
  clusterShift: u8(109), // log2 of sectors
  tables: u8(110),
})
const NAME = 'EXFAT   '
const FLAG = { secondTable: 1, dirty: 2, failure: 4 } as const
const REGION_SECTORS = 12 // the last of which is the checksum, over and over
const NOT_SUMMED: readonly number[] = [106, 107, 112] // flags and use, which change
const MIN_SHIFT = 9
const MAX_SHIFT = 12
const MAX_CLUSTER_SHIFT = 25 // 32 MiB
const MAX_CLUSTERS = 2 ** 32 - 11
const MAJOR = 1
export const FIRST_CLUSTER = 2

/** What met every limit; bytes from the start of the volume. */
export interface BootRegion {
  readonly clusterBytes: number
  readonly clusters: number
  readonly tableOffset: number
  readonly heapOffset: number
  readonly rootCluster: number
  readonly totalBytes: number
  readonly serial: number
  /** Which of two tables, and which bitmap with it. */
  readonly activeTable: number
  readonly notes: readonly string[]
}

export type Refusal = 'malformed' | 'truncated' | 'unknown-feature'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' ? 'unsupported' : 'invalid-image', `exFAT: ${problem}`, {
    fileSystem: 'exfat',
    reason,
    ...details,
  })

/** The main region, or the backup behind it where that one is damaged. @returns undefined where there is none @throws ServiceError `invalid-image` | `unsupported` */
export async function readBootRegion(volume: BlockSource): Promise<BootRegion | undefined> {
  if (volume.size < 512) return undefined
  const head = await volume.read(0, 512)
  if (Buffer.from(head.subarray(3, 11)).toString('latin1') !== NAME) return undefined
  try {
    return await regionAt(volume, 0, head[108]!)
  } catch (error) {
    if (!isServiceError(error, 'invalid-image')) throw error
    for (let shift = MIN_SHIFT; shift <= MAX_SHIFT; shift += 1) {
      const backup = await regionAt(volume, REGION_SECTORS, shift).catch(() => undefined)
      if (backup)
        return { ...backup, notes: [...backup.notes, 'its boot region is damaged: the backup was read, run fsck.exfat'] }
    }
    throw error
  }
}

async function regionAt(volume: BlockSource, sector: number, shift: number): Promise<BootRegion> {
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', problem, { offset: sector * 2 ** shift })
  }
  check(shift >= MIN_SHIFT && shift <= MAX_SHIFT, `BytesPerSectorShift is ${shift}; it is 9 to 12`)
  const sectorBytes = 2 ** shift
  check((sector + REGION_SECTORS) * sectorBytes <= volume.size, 'the boot region is cut off')
  const region = await volume.read(sector * sectorBytes, REGION_SECTORS * sectorBytes)
  const raw = record.parse(region)
  check(
    Buffer.from(raw.name).toString('latin1') === NAME && raw.sectorShift === shift,
    'the boot region has another FileSystemName',
  )
  check(
    raw.mustBeZero.every((byte) => byte === 0),
    'MustBeZero is not zero',
  )
  const summed = (REGION_SECTORS - 1) * sectorBytes
  const sum = new DataView(region.buffer, region.byteOffset + summed).getUint32(0, true)
  check(checksumOf(region.subarray(0, summed), NOT_SUMMED) === sum, 'the checksum of the boot region is another')
  if (raw.revision >>> 8 !== MAJOR)
    throw refuse('unknown-feature', `FileSystemRevision is ${raw.revision >>> 8}.${raw.revision & 0xff}; 1.x is known`)
  const { clusterShift, clusters, rootCluster, tables, volumeSectors, tableSector, tableSectors, heapSector } = raw
  check(clusterShift + shift <= MAX_CLUSTER_SHIFT, `SectorsPerClusterShift is ${clusterShift}`)
  check(tables === 1 || tables === 2, `NumberOfFats is ${tables}`)
  check(clusters > 0 && clusters <= MAX_CLUSTERS, `ClusterCount is ${clusters}`)
  check((clusters + FIRST_CLUSTER) * 4 <= tableSectors * sectorBytes, `FatLength is ${tableSectors}, for ${clusters} clusters`)
  check(
    tableSector >= 2 * REGION_SECTORS && tableSector + tables * tableSectors <= heapSector,
    `FatOffset is ${tableSector}, ClusterHeapOffset ${heapSector}`,
  )
  check(heapSector + clusters * 2 ** clusterShift <= volumeSectors, `VolumeLength is ${volumeSectors}`)
  check(Number.isSafeInteger(volumeSectors * sectorBytes), `VolumeLength is ${volumeSectors}`)
  check(rootCluster >= FIRST_CLUSTER && rootCluster < clusters + FIRST_CLUSTER, `FirstClusterOfRootDirectory is ${rootCluster}`)
  const activeTable = (raw.flags & FLAG.secondTable) !== 0 && tables === 2 ? 1 : 0
  const notes: string[] = []
  if ((raw.flags & FLAG.dirty) !== 0) notes.push('it was not unmounted: run fsck.exfat')
  if ((raw.flags & FLAG.failure) !== 0) notes.push('its disk had faults when it was used: run fsck.exfat')
  const totalBytes = volumeSectors * sectorBytes
  if (totalBytes > volume.size) notes.push(`it has ${totalBytes} bytes, and its volume ${volume.size}: it was cut off`)
  return {
    clusterBytes: sectorBytes * 2 ** clusterShift,
    clusters,
    tableOffset: (tableSector + activeTable * tableSectors) * sectorBytes,
    heapOffset: heapSector * sectorBytes,
    rootCluster,
    totalBytes,
    serial: raw.serial,
    activeTable,
    notes,
  }
}

/** Of the boot region. Source: section 3.4, figure 1. */
function checksumOf(input: Uint8Array, skipped: readonly number[]): number {
  let sum = 0
  for (let at = 0; at < input.length; at += 1) {
    if (at <= 112 && skipped.includes(at)) continue
    sum = (((sum << 31) | (sum >>> 1)) + input[at]!) >>> 0
  }
  return sum
}
