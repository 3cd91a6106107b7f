import { maxFileBytes } from '../content/manifest-format.ts'
import type { Ingested, IngestOptions } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { gather } from './gather.ts'
import { IngestRun } from './ingest-run.ts'

/** Stream → chunks and manifest; see `ChunkStore.ingest`. */
export async function ingest(engine: Engine, body: AsyncIterable<Uint8Array>, options: IngestOptions): Promise<Ingested> {
  const maxBytes = Math.min(options.maxBytes ?? Number.MAX_SAFE_INTEGER, maxFileBytes(engine.chunkBytes))
  const run = await IngestRun.begin(engine, options)
  return run.through(async () => {
    engine.ingests += 1
    try {
      const blockBytes = () => engine.blockBytes(engine.ingests)
      for await (const block of gather(body, { blockBytes, maxBytes, signal: options.signal })) {
        if ('zeros' in block) await run.addZeros(block.zeros)
        else await run.copy(block)
      }
    } finally {
      engine.ingests -= 1
    }
  })
}
