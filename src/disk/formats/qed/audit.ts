import { ServiceError } from '../../../base/errors.ts'
import { KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { DataFinder, tableParts } from '../../block/data-in-file.ts'
import { UsedUnits } from '../../block/used-units.ts'
import type { OpenOptions } from '../format-driver.ts'
import { segmentsOf, tableAt, viewOf } from './disk.ts'
import { readHeader, refuse } from './header.ts'

/** Of the file: one bit each, 256 MiB at most, of which memory is used where clusters are. 8 TiB with the smallest clusters. */
const MAX_CLUSTERS = 2 ** 31
const PART_BYTES = 64 * KiB

/** Walks the L1 table and every L2 table, 64 KiB at a time. Where the file has holes in them there is nothing to look at. @throws ServiceError `invalid-image` | `unsupported` */
export async function auditFile(file: BlockSource, given: OpenOptions = {}): Promise<readonly string[]> {
  const h = await readHeader(file, given)
  const { clusterBytes, tableBytes, tableEntries, l1TableOffset, virtualBytes } = h
  const clusters = Math.ceil(file.size / clusterBytes)
  if (clusters > MAX_CLUSTERS) {
    throw new ServiceError('too-large', `qed: the file has ${clusters} clusters; at most ${MAX_CLUSTERS} can be checked`, {
      clusters,
    })
  }
  const used = new UsedUnits(clusters)
  const take = (offset: number, bytes: number, what: string) => {
    const twice = used.take(offset / clusterBytes, bytes / clusterBytes)
    if (twice < 0) return
    const hostOffset = twice * clusterBytes
    throw refuse('overlap', `${what} uses a cluster of the file that is in use already`, { hostOffset })
  }
  take(0, h.headerBytes, 'the header')
  take(l1TableOffset, tableBytes, 'the L1 table')
  const tableSpan = tableEntries * clusterBytes
  const finder = new DataFinder(file)
  let isCutOff = false

  const auditTable = async (l2Offset: number, start: number) => {
    const needed = Math.min(tableEntries, Math.ceil((virtualBytes - start) / clusterBytes))
    for await (const { bytes, first } of partsOf(file, l2Offset, needed)) {
      const view = viewOf(bytes)
      const from = start + first * clusterBytes
      const to = Math.min(from + (view.byteLength / 8) * clusterBytes, virtualBytes)
      for (const segment of segmentsOf(view, from, from, to, h, file.size)) {
        if (segment.kind !== 'data') continue
        take(segment.hostOffset, clusterBytes, `the data for byte ${segment.offset} of the disk`)
        isCutOff ||= segment.hostOffset + clusterBytes > file.size
      }
    }
  }
  for await (const { bytes, first } of partsOf(file, l1TableOffset, Math.ceil(virtualBytes / tableSpan))) {
    const view = viewOf(bytes)
    for (let index = 0; index < view.byteLength / 8; index += 1) {
      const offset = tableAt(view, index * 8, first + index, h, file.size)
      if (offset === 0) continue
      take(offset, tableBytes, `the L2 table of L1 entry ${first + index}`)
      if (await finder.hasData(offset, tableBytes)) await auditTable(offset, (first + index) * tableSpan)
    }
  }

  const warnings: string[] = []
  if (h.needsCheck) warnings.push('qed: the file was not closed cleanly; clusters may be lost, the disk is read as it is')
  if (isCutOff) warnings.push('qed: the file ends inside its last cluster; what is missing reads as zeros')
  return warnings
}

const partsOf = (file: BlockSource, offset: number, entries: number) =>
  tableParts(file, { offset, bytes: entries * 8, entryBytes: 8, partBytes: PART_BYTES })
