import { setTimeout as pause } from 'node:timers/promises'
import type { ReadOptions, StreamDigest } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { pieceOfLent, StreamDigests } from './stream-digests.ts'
import { lendFile } from './stream-file.ts'

/** Blocks that wait for their digest beside those that are being read. */
const BLOCKS_BEHIND = 4
/** Work that gives way does so many blocks at a time, so that a small file is not kept open for long … */
const BLOCKS_A_TURN = 8
/** … and rests so long between them: at 10 MiB/s it takes some hundredths of a processor. */
const PAUSE_MS = 800
/** A store in which nothing has moved for so long is idle. */
const QUIET_MS = 1000

/** Digests of a whole stored file, computed on worker threads; see `ChunkStore.digest`. */
export async function digestFile(
  engine: Engine,
  manifest: string,
  algorithms: readonly StreamDigest[],
  options: ReadOptions = {},
): Promise<Record<StreamDigest, string>> {
  const { root } = await engine.reader.openManifest(manifest)
  const digests = new StreamDigests(engine, algorithms)
  try {
    await digestStored(engine, digests, manifest, root.fileBytes, options)
    return (await digests.finish()) as Record<StreamDigest, string>
  } catch (error) {
    digests.abandon()
    throw error
  }
}

/** Feeds the first `bytes` of a stored file. When it settles, none of its memory is in use. */
export async function digestStored(
  engine: Engine,
  digests: StreamDigests,
  manifest: string,
  bytes: number,
  options: ReadOptions,
): Promise<void> {
  const underWay: Promise<void>[] = []
  let blocks = 0
  try {
    for await (const lent of lendFile(engine, manifest, 0, bytes, options)) {
      const update = digests.update(pieceOfLent(engine, lent.bytes)).finally(lent.giveBack)
      update.catch(() => undefined) // it is awaited in its turn
      underWay.push(update)
      if (underWay.length >= BLOCKS_BEHIND) await underWay.shift()
      blocks += 1
      const isTurnOver = blocks % BLOCKS_A_TURN === 0
      if (options.givesWay && isTurnOver && performance.now() - engine.lastMovedMs < QUIET_MS)
        await pause(PAUSE_MS, undefined, { signal: options.signal }).catch(() => undefined)
    }
    await Promise.all(underWay)
  } finally {
    await Promise.allSettled(underWay)
  }
}
