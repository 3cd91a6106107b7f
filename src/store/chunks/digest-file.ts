import type { StreamDigest } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { StreamDigests } from './stream-digests.ts'
import { lendFile } from './stream-file.ts'

/** Digests of a whole stored file, computed on worker threads; see `ChunkStore.digest`. */
export async function digestFile(
  engine: Engine,
  manifest: string,
  algorithms: readonly StreamDigest[],
  signal?: AbortSignal,
): Promise<Record<StreamDigest, string>> {
  const { root } = await engine.reader.openManifest(manifest)
  const digests = new StreamDigests(engine.workers, algorithms)
  const underWay: Promise<void>[] = []
  try {
    for await (const { bytes, giveBack } of lendFile(engine, manifest, 0, root.fileBytes, signal)) {
      const slot = await engine.slots.acquire()
      engine.slots.bytes(slot).set(bytes)
      const { length } = bytes
      giveBack()
      const update = digests.update(slot, length).finally(() => engine.slots.release(slot))
      update.catch(() => undefined) // it is awaited in its turn
      underWay.push(update)
      if (underWay.length >= engine.plan.slotsOfOne) await underWay.shift()
    }
    await Promise.all(underWay)
    const slot = await engine.slots.acquire()
    try {
      return (await digests.finish(slot)) as Record<StreamDigest, string>
    } finally {
      engine.slots.release(slot)
    }
  } catch (error) {
    await Promise.allSettled(underWay)
    digests.abandon()
    throw error
  }
}
