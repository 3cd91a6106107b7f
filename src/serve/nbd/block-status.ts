import { setImmediate } from 'node:timers/promises'
import { ServiceError } from '../../base/errors.ts'
import type { BlockSource, Extent } from '../../disk/block/block-source.ts'
import { STATE_HOLE, STATE_ZERO } from './protocol.ts'

/** One answer's descriptors: 16 KiB of reply. A client asks on from where an answer ends. */
const MAX_DESCRIPTORS = 2048
/** Runs looked at for one answer, since many short ones of one kind make a single descriptor. */
const MAX_RUNS = 16_384
/** After so many, others have their turn: a disk that knows its extents by heart would never let go of the thread. */
const RUNS_IN_A_TURN = 512
/** "length (unsigned, MUST NOT be zero)": 32 bits. */
const MAX_DESCRIPTOR_BYTES = 2 ** 32 - 1

/** What one answer may hold in memory. */
export const STATUS_REPLY_BYTES = MAX_DESCRIPTORS * 8 + 64

export const stateOf = (kind: Extent['kind']): number =>
  kind === 'data' ? 0 : kind === 'zero' ? STATE_ZERO : STATE_HOLE | STATE_ZERO

/**
 * `base:allocation` of a range: pairs of length in bytes and flags, neighbours always differing. They may end before the
 * range does, never after it.
 * @param most descriptors to make: 1 for REQ_ONE
 */
export async function blockStatus(disk: BlockSource, offset: number, length: number, most = MAX_DESCRIPTORS): Promise<number[]> {
  const descriptors: number[] = []
  let [runBytes, runState, runs, at] = [0, -1, 0, offset]
  for await (const extent of disk.extents(offset, length)) {
    if (extent.offset !== at || extent.length <= 0 || extent.length > offset + length - at) {
      throw new ServiceError('corrupt', 'The disk of an NBD export lists extents that do not follow each other: report a bug.', {
        expected: at,
        got: extent.offset,
      })
    }
    at += extent.length
    const state = stateOf(extent.kind)
    if (state === runState) {
      runBytes += extent.length
    } else {
      if (runBytes > 0) descriptors.push(runBytes, runState)
      runBytes = 0
      if (descriptors.length === 2 * most) break
      runBytes = extent.length
      runState = state
    }
    runs += 1
    if (runs === MAX_RUNS) break
    if (runs % RUNS_IN_A_TURN === 0) await setImmediate()
  }
  if (runBytes > 0) descriptors.push(Math.min(runBytes, MAX_DESCRIPTOR_BYTES), runState)
  if (descriptors.length === 0)
    throw new ServiceError('corrupt', 'The disk of an NBD export lists no extents: report a bug.', { offset })
  return descriptors
}
