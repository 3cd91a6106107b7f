import { isServiceError } from '../../base/errors.ts'
import { adoptManifest } from './adopt.ts'
import type { JobOptions, Live } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { cancelledError } from './gather.ts'
import { liveManifestOf } from './live-manifest.ts'
import { reconcile } from './reconcile.ts'

/**
 * Empties the index and makes it again from footers and live manifests. Ingests that are under way fail, as their holds are
 * gone. Of records of one owner that name the same manifest one row does for all: a collection puts it back when only some of
 * them are dropped. A kill in the middle is harmless, since opening the store goes on with the footers.
 */
export async function rebuild(
  engine: Engine,
  live: () => AsyncIterable<Live>,
  { signal, onProgress = () => undefined }: JobOptions = {},
): Promise<{ packs: number; chunks: number }> {
  await engine.writer.drain()
  await engine.index.clear()
  engine.reader.forget()
  const entered = await reconcile(engine.blobs, engine.index, (done) => onProgress({ phase: 'packs', done, total: 0 }))
  let done = 0
  const seen = new Set<string>()
  for await (const one of live()) {
    if (signal?.aborted) throw cancelledError()
    const { manifest, owner, isRead } = liveManifestOf(one)
    const row = JSON.stringify([manifest, owner])
    if (!isRead && !seen.has(row)) await adoptManifest(engine, manifest, { owner }).catch(ifUnread)
    seen.add(row)
    done += 1
    onProgress({ phase: 'manifests', done, total: 0 })
  }
  return entered
}

/** The disk does not give it now: it stays without a row; `check` reports it, and no collection removes a thing until it has one. */
function ifUnread(error: unknown): void {
  if (!isServiceError(error, 'unavailable')) throw error
}
