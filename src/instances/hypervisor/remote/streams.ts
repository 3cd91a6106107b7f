import { ServiceError } from '../../../base/errors.ts'
import { type FrameLink, MAX_BODY_BYTES } from './frames.ts'

/**
 * Bytes to the other side, each piece when it is asked for: nothing is taken from `body` before what came earlier was used there. The last
 * frame says that they are all.
 * @throws what `body` throws: the connection breaks off then; ServiceError `unavailable` where nobody takes the rest
 */
export async function sendStream(link: FrameLink, body: AsyncIterable<Uint8Array>): Promise<void> {
  const pieces = inPieces(body)
  try {
    while (await link.next()) {
      const piece = await pieces.next()
      if (!piece.done) await link.send({}, piece.value)
      else {
        await link.send({ isAll: true })
        link.end()
        return
      }
    }
    throw new ServiceError('unavailable', 'Nobody takes the rest of the memory.')
  } catch (error) {
    link.destroy()
    throw error
  } finally {
    await pieces.return()
  }
}

async function* inPieces(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const bytes of body) {
    for (let at = 0; at < bytes.length; at += MAX_BODY_BYTES) yield bytes.subarray(at, at + MAX_BODY_BYTES)
  }
}

/** The buffers may be kept. @throws ServiceError `unavailable` where the connection broke off before the end */
export async function* receiveStream(link: FrameLink): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    for (;;) {
      const frame = link.isOver ? null : await link.send({ isWanted: true }).then(() => link.next())
      if (!frame) throw new ServiceError('unavailable', 'The stream of the memory broke off.')
      if (frame.head.isAll === true) return
      yield frame.body
    }
  } finally {
    link.destroy()
  }
}
