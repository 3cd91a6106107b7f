import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { maxFileBytes, PAGE_ENTRIES } from '../content/manifest-format.ts'
import type { OpenManifest } from './chunk-reader.ts'
import type { DiskIngestOptions, Ingested, OverIngestOptions } from './chunk-store.ts'
import { changedRuns, type DiskRun, dataRuns } from './disk-runs.ts'
import type { Engine } from './engine.ts'
import { enterReading } from './file-source.ts'
import { cancelledError, orCancelled } from './gather.ts'
import { IngestRun } from './ingest-run.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Disk → chunks and manifest; see `ChunkStore.ingestDisk`. Blocks in which the disk has no data are not read. */
export async function ingestDisk(engine: Engine, disk: BlockSource, options: DiskIngestOptions): Promise<Ingested> {
  const limit = Math.min(options.maxBytes ?? Number.MAX_SAFE_INTEGER, maxFileBytes(engine.chunkBytes))
  if (disk.size > limit)
    throw new ServiceError('too-large', `The disk has ${disk.size} bytes, more than the limit of ${limit}.`, { limit })
  if ('over' in options) return ingestOver(engine, disk, options)
  const run = await IngestRun.begin(engine, options)
  return run.through(() => feed(run, disk, dataRuns(disk, SLOT_BYTES), options.signal))
}

/** The file below is being read while this lasts, so that no collector takes from it what is about to be claimed. */
async function ingestOver(engine: Engine, disk: BlockSource, options: OverIngestOptions): Promise<Ingested> {
  const { over, signal } = options
  const leave = enterReading(engine, over.manifest)
  try {
    const known = await engine.reader.openManifest(over.manifest)
    const run = await IngestRun.begin(engine, options)
    const runs = changedRuns(disk, over, known.root.fileBytes, engine.chunkBytes)
    return await run.through(() => feed(run, disk, runs, signal, known))
  } finally {
    leave()
  }
}

async function feed(
  run: IngestRun,
  disk: BlockSource,
  runs: AsyncIterable<DiskRun>,
  signal: AbortSignal | undefined,
  known?: OpenManifest,
): Promise<void> {
  for await (const { offset, length, kind } of runs) {
    if (signal?.aborted) throw cancelledError()
    if (kind === 'zeros') await run.addZeros(length)
    else if (kind === 'read') await copyRun(run, disk, offset, length, signal)
    else await keepRun(run, disk, offset, length, known!)
  }
}

async function copyRun(run: IngestRun, disk: BlockSource, offset: number, length: number, signal?: AbortSignal): Promise<void> {
  const end = offset + length
  for (let at = offset; at < end; at += SLOT_BYTES) {
    await run.copy(await orCancelled(disk.read(at, Math.min(SLOT_BYTES, end - at)), signal))
  }
}

/** A page at a time. */
async function keepRun(run: IngestRun, disk: BlockSource, offset: number, length: number, known: OpenManifest): Promise<void> {
  const pageBytes = PAGE_ENTRIES * known.root.chunkBytes
  const end = offset + length
  for (let at = offset; at < end; ) {
    const next = Math.min(end, (Math.floor(at / pageBytes) + 1) * pageBytes)
    await run.keep(known, at, next - at, disk)
    at = next
  }
}
