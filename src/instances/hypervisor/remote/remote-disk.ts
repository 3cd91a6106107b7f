import { ServiceError } from '../../../base/errors.ts'
import { assertRange, type BlockSource, type Extent } from '../../../disk/block/block-source.ts'
import { type Frame, type FrameLink, MAX_BODY_BYTES } from './frames.ts'
import type { DiskQuestion } from './served-disk.ts'
import { errorOf, type Failure } from './words.ts'

/** A disk that the agent has open, for as long as the connection lasts. */
export function remoteDisk(link: FrameLink, size: number): BlockSource {
  let turn: Promise<unknown> = Promise.resolve()
  /** One after the other: an answer is to the oldest question. */
  const ask = (question: DiskQuestion): Promise<Frame> => {
    const answered = turn.then(async () => {
      await link.send(question)
      const answer = await link.next()
      if (!answer) throw new ServiceError('unavailable', 'The agent of the host has hung up; open the layer again.')
      if (answer.head.failed) throw errorOf(answer.head.failed as Failure)
      return answer
    })
    turn = answered.catch(() => {})
    return answered
  }
  return {
    size,
    async read(offset, length) {
      assertRange(offset, length, size)
      const parts: Buffer[] = []
      for (let at = 0; at < length; ) {
        const wanted = Math.min(MAX_BODY_BYTES, length - at)
        const { body } = await ask({ ask: 'read', offset: offset + at, length: wanted })
        if (body.length !== wanted)
          throw new ServiceError('corrupt', 'The agent of the host answered with fewer bytes than it has.')
        parts.push(body)
        at += wanted
      }
      return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    },
    async *extents(offset, length) {
      assertRange(offset, length, size)
      for (let at = offset; at < offset + length; ) {
        const runs = (await ask({ ask: 'extents', offset: at, length: offset + length - at })).head.runs as readonly Extent[]
        const last = runs.at(-1)
        if (!last || last.length <= 0 || last.offset + last.length <= at) {
          throw new ServiceError('corrupt', 'The agent of the host answered with runs that lead nowhere.')
        }
        yield* runs
        at = last.offset + last.length
      }
    },
    async close() {
      link.destroy()
    },
  }
}
