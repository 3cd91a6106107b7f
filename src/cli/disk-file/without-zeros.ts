import { KiB } from '../../base/units.ts'
import type { BlockSource, Extent } from '../../disk/block/block-source.ts'
import { ClusterRuns } from '../../disk/block/cluster-runs.ts'
import { inOrder } from '../../disk/block/in-order.ts'
import { isZero } from '../../disk/block/zero.ts'
import { PIECES_AHEAD, PieceBuffers, piecesOf } from './pieces.ts'

const GRAIN_BYTES = 64 * KiB
/** 24 bytes each. Of a disk in more pieces some zeros stay data. */
const MAX_RUNS = 2 ** 20

export interface ScanOptions {
  readonly signal: AbortSignal
  readonly onProgress: (doneBytes: number) => void
}

/** The same disk, whose extents leave out what is recorded as data and is zeros. Reads all data once. */
export async function withoutZeros(disk: BlockSource, { signal, onProgress }: ScanOptions): Promise<BlockSource> {
  const runs = new ClusterRuns(Math.ceil(disk.size / GRAIN_BYTES), MAX_RUNS, 1)
  const buffers = new PieceBuffers()
  const looked = inOrder(piecesOf(disk, signal), PIECES_AHEAD, async ({ kind, offset, length }) => {
    const grains: number[] = []
    if (kind !== 'data') return { grains, doneBytes: offset + length }
    await buffers.lend(async (buffer) => {
      const bytes = await disk.read(offset, length, buffer.subarray(0, length))
      for (let at = offset; at < offset + length; ) {
        const grain = Math.floor(at / GRAIN_BYTES)
        const stop = Math.min(offset + length, (grain + 1) * GRAIN_BYTES)
        if (!isZero(bytes.subarray(at - offset, stop - offset))) grains.push(grain)
        at = stop
      }
    })
    return { grains, doneBytes: offset + length }
  })
  for await (const { grains, doneBytes } of looked) {
    for (const grain of grains) runs.add(grain, grain + 1)
    onProgress(doneBytes)
  }
  runs.seal()
  return {
    size: disk.size,
    read: (offset, length, into) => disk.read(offset, length, into),
    extents: (offset, length) => extentsOf(runs, offset, length),
    close: () => disk.close(),
  }
}

async function* extentsOf(runs: ClusterRuns, offset: number, length: number): AsyncGenerator<Extent> {
  const end = offset + length
  let at = offset
  for (const [first, last] of runs.between(Math.floor(offset / GRAIN_BYTES), Math.ceil(end / GRAIN_BYTES))) {
    const [from, to] = [Math.max(offset, first * GRAIN_BYTES), Math.min(end, last * GRAIN_BYTES)]
    if (from > at) yield { offset: at, length: from - at, kind: 'hole' }
    if (to > from) yield { offset: from, length: to - from, kind: 'data' }
    at = to
  }
  if (at < end) yield { offset: at, length: end - at, kind: 'hole' }
}
