import type { BlockSource, Extent } from '../../disk/block/block-source.ts'
import { inOrder } from '../../disk/block/in-order.ts'
import { isZero } from '../../disk/block/zero.ts'
import type { TransferState } from '../progress.ts'
import { PIECE_BYTES, PIECES_AHEAD } from './pieces.ts'

export interface CompareOptions {
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * The first byte in which two disks differ; the shorter one is taken as if zeros followed. Reads only what one of them has data for.
 * @returns null where there is none
 */
export async function firstDifference(a: BlockSource, b: BlockSource, options: CompareOptions): Promise<number | null> {
  const { signal, onProgress } = options
  const totalBytes = Math.max(a.size, b.size)
  let readBytes = 0
  const looked = inOrder(pieces(a, b, signal), PIECES_AHEAD, async ({ offset, length, aHas, bHas }) => {
    const [mine, theirs] = await Promise.all([
      aHas ? a.read(offset, length) : undefined,
      bHas ? b.read(offset, length) : undefined,
    ])
    readBytes += (mine?.length ?? 0) + (theirs?.length ?? 0)
    return { at: differenceOf(mine, theirs), offset, length }
  })
  for await (const { at, offset, length } of looked) {
    if (at !== undefined) return offset + at
    onProgress({ phase: 'Comparing', doneBytes: offset + length, totalBytes, movedBytes: readBytes, counts: { read: readBytes } })
  }
  return null
}

/** Undefined: equal. Absent bytes are zeros. */
function differenceOf(a: Uint8Array | undefined, b: Uint8Array | undefined): number | undefined {
  if (a && b) {
    if (Buffer.compare(a, b) === 0) return undefined
    return a.findIndex((byte, at) => byte !== b[at])
  }
  const one = a ?? b
  if (one === undefined || isZero(one)) return undefined
  return one.findIndex((byte) => byte !== 0)
}

interface Pair {
  readonly offset: number
  readonly length: number
  /** Whether there are data. */
  readonly aHas: boolean
  readonly bHas: boolean
}

/** Stretches in which each of the two is data, or is not, at most 1 MiB where one of them is. */
async function* pieces(a: BlockSource, b: BlockSource, signal: AbortSignal): AsyncGenerator<Pair> {
  const end = Math.max(a.size, b.size)
  const [ofA, ofB] = [new Walk(a, end), new Walk(b, end)]
  try {
    for (let at = 0; at < end; ) {
      signal.throwIfAborted()
      const [inA, inB] = [await ofA.at(at), await ofB.at(at)]
      const [aHas, bHas] = [inA.kind === 'data', inB.kind === 'data']
      const both = Math.min(inA.offset + inA.length, inB.offset + inB.length)
      const stop = aHas || bHas ? Math.min(both, (Math.floor(at / PIECE_BYTES) + 1) * PIECE_BYTES) : both
      yield { offset: at, length: stop - at, aHas, bHas }
      at = stop
    }
  } finally {
    await Promise.all([ofA.end(), ofB.end()])
  }
}

/** Goes through the extents of a disk, and of the hole behind it. */
class Walk {
  readonly #extents: AsyncIterator<Extent>
  #now: Extent = { offset: 0, length: 0, kind: 'hole' }
  readonly #behind: Extent

  constructor(disk: BlockSource, end: number) {
    this.#extents = disk.extents(0, disk.size)[Symbol.asyncIterator]()
    this.#behind = { offset: disk.size, length: end - disk.size, kind: 'hole' }
  }

  /** @param offset must ascend */
  async at(offset: number): Promise<Extent> {
    while (offset >= this.#now.offset + this.#now.length) {
      const next = await this.#extents.next()
      this.#now = next.done ? this.#behind : next.value
    }
    return this.#now
  }

  async end(): Promise<void> {
    await this.#extents.return?.()
  }
}
