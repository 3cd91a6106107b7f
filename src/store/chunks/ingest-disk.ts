import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { maxFileBytes } from '../content/manifest-format.ts'
import type { Ingested, IngestOptions } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { cancelledError, orCancelled } from './gather.ts'
import { IngestRun } from './ingest-run.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Disk → chunks and manifest; see `ChunkStore.ingestDisk`. Blocks in which the disk has no data are not read. */
export async function ingestDisk(engine: Engine, disk: BlockSource, options: IngestOptions): Promise<Ingested> {
  const limit = Math.min(options.maxBytes ?? Number.MAX_SAFE_INTEGER, maxFileBytes(engine.chunkBytes))
  if (disk.size > limit)
    throw new ServiceError('too-large', `The disk has ${disk.size} bytes, more than the limit of ${limit}.`, { limit })
  const run = await IngestRun.begin(engine, options)
  return run.through(async () => {
    let doneBytes = 0
    for await (const { offset, length, kind } of disk.extents(0, disk.size)) {
      if (options.signal?.aborted) throw cancelledError()
      if (kind !== 'data') continue
      const first = Math.max(doneBytes, Math.floor(offset / SLOT_BYTES) * SLOT_BYTES)
      const end = Math.min(disk.size, Math.ceil((offset + length) / SLOT_BYTES) * SLOT_BYTES)
      if (first > doneBytes) await run.addZeros(first - doneBytes)
      for (let at = Math.max(first, doneBytes); at < end; at += SLOT_BYTES) {
        const bytes = await orCancelled(disk.read(at, Math.min(SLOT_BYTES, end - at)), options.signal)
        await run.copy(bytes)
      }
      doneBytes = Math.max(doneBytes, end)
    }
    if (disk.size > doneBytes) await run.addZeros(disk.size - doneBytes)
  })
}
