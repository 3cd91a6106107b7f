import { allEnded } from '../../base/all-ended.ts'
import { assertRange, type BlockSource, type Extent, type Filter } from '../block/block-source.ts'
import { merged } from '../block/run-merger.ts'

/**
 * Puts a layer on a disk of the same size: where the layer has a `hole`, the disk below shows through; `zero` hides it. Closing
 * closes the disk below; the layer is closed by who opened it.
 */
export const layer =
  (top: BlockSource): Filter =>
  (next) => {
    if (top.size !== next.size) throw new Error(`a layer of ${top.size} bytes lies on a disk of ${next.size}`)
    return {
      size: top.size,
      async read(offset, length, into) {
        assertRange(offset, length, top.size)
        const answer = into ?? Buffer.allocUnsafeSlow(length)
        const reads: Promise<void>[] = []
        try {
          for await (const run of top.extents(offset, length)) {
            reads.push(readRun(top, next, run, answer.subarray(run.offset - offset, run.offset - offset + run.length)))
          }
        } finally {
          await allEnded(reads)
        }
        return answer
      },
      extents: (offset, length) => merged(extentsOf(top, next, offset, length)),
      close: () => next.close(),
    }
  }

async function readRun(top: BlockSource, below: BlockSource, { offset, length, kind }: Extent, place: Uint8Array): Promise<void> {
  if (kind === 'zero') {
    place.fill(0)
    return
  }
  const bytes = await (kind === 'data' ? top : below).read(offset, length, place)
  if (bytes.buffer !== place.buffer || bytes.byteOffset !== place.byteOffset) place.set(bytes)
}

async function* extentsOf(top: BlockSource, below: BlockSource, offset: number, length: number): AsyncGenerator<Extent> {
  for await (const run of top.extents(offset, length)) {
    if (run.kind === 'hole') yield* below.extents(run.offset, run.length)
    else yield run
  }
}
