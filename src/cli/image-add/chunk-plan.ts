import type { BlockSource } from '../../disk/block/block-source.ts'

/** Chunks one after the other in the file. */
export interface ChunkRun {
  readonly first: number
  readonly count: number
}

/** The runs of chunks that hold data, ascending and apart. An extent that begins inside a chunk shares it with the one before. */
export async function* dataRuns(source: BlockSource, chunkBytes: number): AsyncIterable<ChunkRun> {
  let first = 0
  let end = 0
  for await (const { offset, length, kind } of source.extents(0, source.size)) {
    if (kind !== 'data') continue
    const from = Math.floor(offset / chunkBytes)
    const to = Math.ceil((offset + length) / chunkBytes)
    if (from > end) {
      if (end > first) yield { first, count: end - first }
      first = from
    } else if (end === first) first = from
    end = Math.max(end, to)
  }
  if (end > first) yield { first, count: end - first }
}

/** Runs cut and gathered into batches of at most `most` chunks, so that few far-apart chunks travel together. */
export async function* batches(runs: AsyncIterable<ChunkRun>, most: number): AsyncIterable<readonly ChunkRun[]> {
  let batch: ChunkRun[] = []
  let room = most
  for await (const run of runs) {
    for (let { first, count } = run; count > 0; ) {
      const take = Math.min(count, room)
      batch.push({ first, count: take })
      first += take
      count -= take
      room -= take
      if (room > 0) continue
      yield batch
      batch = []
      room = most
    }
  }
  if (batch.length > 0) yield batch
}
