import type { Filter } from '../disk/block/block-source.ts'
import { type FirstRead, recordReads } from '../disk/filters/record-reads.ts'
import { replayReads } from '../disk/filters/replay-reads.ts'
import {
  type BootEntry,
  decodeBootRecord,
  encodeBootRecord,
  looksLikeBoot,
  MAX_BOOT_ENTRIES,
  MAX_BOOT_MS,
  PREFIX_BYTES,
} from '../store/content/boot-record.ts'
import type { ChunkOrigin } from './origin.ts'
import type { RemoteFile } from './remote-file.ts'

/** Ahead of one machine: 32 MiB, a quarter of what is kept in memory. */
const DISTANCE_CHUNKS = 512

export interface BootFilters {
  readonly filters: readonly Filter[]
  /** Ends the recording, and settles when the record is with the service, or will not come there. */
  finish(): Promise<void>
}

/**
 * Fetches by the record of an earlier start, and records this one where there is none of this very image. A record is a hint: what goes wrong
 * with it keeps nobody from the disk.
 */
export async function bootFilters(origin: ChunkOrigin, file: RemoteFile, signal: AbortSignal): Promise<BootFilters> {
  const found = await foundRecord(origin, signal)
  const unitBytes = file.facts.chunkBytes
  const filters: Filter[] = []
  if (found) {
    const prefetch = (units: readonly number[]) => file.prefetchChunks(units)
    filters.push(replayReads({ units: found.entries.map(({ chunk }) => chunk), unitBytes, prefetch, distance: DISTANCE_CHUNKS }))
  }
  if (found?.isOwn) return { filters, finish: async () => undefined }
  const recorder = recordReads({ unitBytes, maxUnits: MAX_BOOT_ENTRIES, maxMs: MAX_BOOT_MS })
  filters.push(recorder.filter)
  const sent = recorder.ended.then((reads) => send(reads, origin, file, signal)).catch(() => undefined) // the next start records
  const finish = async () => {
    recorder.end()
    await sent
  }
  return { filters, finish }
}

async function foundRecord(
  origin: ChunkOrigin,
  signal: AbortSignal,
): Promise<{ readonly entries: readonly BootEntry[]; readonly isOwn: boolean } | undefined> {
  try {
    const found = await origin.bootRecord(signal)
    return found && { entries: decodeBootRecord(found.record), isOwn: found.isOwn }
  } catch {
    return undefined
  }
}

async function send(reads: readonly FirstRead[], origin: ChunkOrigin, file: RemoteFile, signal: AbortSignal): Promise<void> {
  const entries: BootEntry[] = []
  for (const { unit, afterMs } of reads) {
    const digest = await file.digestOf(unit)
    if (digest) entries.push({ chunk: unit, afterMs, prefix: digest.subarray(0, PREFIX_BYTES) })
  }
  if (looksLikeBoot(entries.map(({ chunk }) => chunk))) await origin.putBootRecord(encodeBootRecord(entries), signal)
}
