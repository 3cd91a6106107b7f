import type { Filter } from '../../disk/block/block-source.ts'
import { recordReads } from '../../disk/filters/record-reads.ts'
import { replayReads } from '../../disk/filters/replay-reads.ts'
import type { StoredFile } from '../../store/chunks/chunk-store.ts'
import { MAX_BOOT_ENTRIES, MAX_BOOT_MS } from '../../store/content/boot-record.ts'
import type { LeasedImage } from '../leases/lease.ts'
import type { ImagePorts } from '../ports.ts'
import { findBootRecord, saveFirstReads } from './boot-records.ts'

/** Ahead of one machine: 4 MiB, an eighth of the memory for chunks at its least, since several machines start at once. */
const DISTANCE_CHUNKS = 64

/**
 * For the file of an image that is opened to start machines from: brings near what an earlier start read, or what was like it; and records
 * this start where the image has no record of its own. A record is a hint: nobody is kept from a disk for want of it.
 */
export async function bootFilters(
  ports: Pick<ImagePorts, 'catalog' | 'chunks' | 'now'>,
  image: LeasedImage,
  file: StoredFile,
): Promise<readonly Filter[]> {
  const unitBytes = ports.chunks.chunkBytes
  const found = await findBootRecord(ports, image).catch(() => undefined)
  const filters: Filter[] = []
  if (found) {
    const prefetch = (units: readonly number[]) => prefetchRuns(file, units, unitBytes)
    filters.push(replayReads({ units: found.entries.map(({ chunk }) => chunk), unitBytes, prefetch, distance: DISTANCE_CHUNKS }))
  }
  if (!found?.isOwn) {
    const recorder = recordReads({ unitBytes, maxUnits: MAX_BOOT_ENTRIES, maxMs: MAX_BOOT_MS })
    void recorder.ended.then((reads) => saveFirstReads(ports, image, reads)).catch(() => undefined) // the next start records
    filters.push(recorder.filter)
  }
  return filters
}

/** Chunks that lie side by side go together. */
async function prefetchRuns(file: StoredFile, units: readonly number[], unitBytes: number): Promise<void> {
  for (let at = 0; at < units.length; ) {
    let to = at + 1
    while (to < units.length && units[to] === units[to - 1]! + 1) to += 1
    const offset = units[at]! * unitBytes
    await file.prefetch(offset, Math.min(file.size, (units[to - 1]! + 1) * unitBytes) - offset)
    at = to
  }
}
