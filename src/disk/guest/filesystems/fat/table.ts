import { isServiceError } from '../../../../base/errors.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import type { LinkTable, LinkWindow } from '../../../block/linked-clusters.ts'
import { type BootSector, refuse } from './boot-sector.ts'

/** What follows each cluster. Source: fatgen103, "FAT Data Structure". */
export const FIRST_CLUSTER = 2
const WINDOW_BYTES = 4 * KiB
const BAD = { 12: 0xff7, 16: 0xfff7, 32: 0x0ffffff7 } as const
const MASK_32 = 0x0fffffff // the four bits above are not of the number

/** The table that is in use. */
export function fileTable(volume: BlockSource, boot: BootSector): LinkTable {
  const bad = (problem: string) => refuse('malformed', `a chain of clusters: ${problem}`)
  const { kind, clusters } = boot
  const numbersAt = numbersOf(volume, boot)
  return {
    firstCluster: FIRST_CLUSTER,
    clusters,
    bad,
    async window(cluster) {
      const { first, last, at } = await numbersAt(cluster)
      return {
        first,
        last,
        next(each) {
          const value = at(each)
          if (value > BAD[kind]) return null
          if (value === BAD[kind]) throw bad(`what follows cluster ${each} is marked as bad`)
          if (value < FIRST_CLUSTER)
            throw bad(`cluster ${each}, which is one of it, is marked as ${value === 0 ? 'free' : 'reserved'}`)
          return value
        },
      } satisfies LinkWindow
    },
  }
}

/** Numbers of the table, as they are. */
export interface Numbers {
  readonly first: number
  readonly last: number
  at(cluster: number): number
}

/** A stretch of the table around the number of a cluster; of FAT12, whose numbers lie across sectors, the whole table. */
export function numbersOf(volume: BlockSource, boot: BootSector): (cluster: number) => Promise<Numbers> {
  const { kind, tableOffset, tableBytes, clusters } = boot
  const last = clusters + FIRST_CLUSTER - 1
  const read = async (from: number, to: number) => {
    if (to > volume.size) throw refuse('truncated', 'the table of clusters lies beyond the end of the volume', { offset: from })
    const bytes = await volume.read(from, to - from)
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
  if (kind === 12) {
    return async () => {
      const view = await read(tableOffset, tableOffset + Math.ceil(((last + 1) * 3) / 2))
      const at = (cluster: number) => {
        const pair = view.getUint16(Math.floor((cluster * 3) / 2), true)
        return cluster % 2 === 0 ? pair & 0xfff : pair >>> 4
      }
      return { first: 0, last, at }
    }
  }
  const width = kind / 8
  return async (cluster) => {
    const page = Math.floor((tableOffset + cluster * width) / WINDOW_BYTES) * WINDOW_BYTES
    const from = Math.max(page, tableOffset)
    const view = await read(from, Math.min(page + WINDOW_BYTES, tableOffset + tableBytes))
    const first = (from - tableOffset) / width
    const at = (each: number) =>
      kind === 16 ? view.getUint16((each - first) * 2, true) : view.getUint32((each - first) * 4, true) & MASK_32
    return { first, last: Math.min(last, first + view.byteLength / width - 1), at }
  }
}

/** Free bytes, where the table is short: that of FAT12 or FAT16. Null where it is cut off. */
export async function countFree(volume: BlockSource, boot: BootSector): Promise<number | null> {
  const numbersAt = numbersOf(volume, boot)
  let free = 0
  try {
    for (let cluster = FIRST_CLUSTER; cluster < boot.clusters + FIRST_CLUSTER; ) {
      const { last, at } = await numbersAt(cluster)
      for (; cluster <= last; cluster += 1) if (at(cluster) === 0) free += 1
    }
  } catch (error) {
    if (isServiceError(error)) return null
    throw error
  }
  return free * boot.clusterBytes
}
