import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { maxFileBytes } from '../content/manifest-format.ts'
import type { DiskIngestOptions, Ingested } from './chunk-store.ts'
import { dataRuns } from './disk-runs.ts'
import type { Engine } from './engine.ts'
import { cancelledError, orCancelled } from './gather.ts'
import { ingestOver } from './ingest-over.ts'
import { IngestRun } from './ingest-run.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Disk → chunks and manifest; see `ChunkStore.ingestDisk`. Blocks in which the disk has no data are not read. */
export async function ingestDisk(engine: Engine, disk: BlockSource, options: DiskIngestOptions): Promise<Ingested> {
  const limit = Math.min(options.maxBytes ?? Number.MAX_SAFE_INTEGER, maxFileBytes(engine.chunkBytes))
  if (disk.size > limit)
    throw new ServiceError('too-large', `The disk has ${disk.size} bytes, more than the limit of ${limit}.`, { limit })
  if ('over' in options) return ingestOver(engine, disk, options)
  const run = await IngestRun.begin(engine, options)
  return run.through(async () => {
    for await (const { offset, length, kind } of dataRuns(disk, SLOT_BYTES)) {
      if (options.signal?.aborted) throw cancelledError()
      const end = offset + length
      if (kind === 'zeros') await run.addZeros(length)
      else
        for (let at = offset; at < end; at += SLOT_BYTES) {
          await run.copy(await orCancelled(disk.read(at, Math.min(SLOT_BYTES, end - at)), options.signal))
        }
    }
  })
}
