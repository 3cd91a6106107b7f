import type { FastifyReply } from 'fastify'
import type { Lent } from '../../store/chunks/chunk-store.ts'

/**
 * Sends bytes of the store straight to the socket, as fast as the client takes them. The first buffer is read before
 * anything is sent, so that what fails at once is answered as an error; what fails later cuts the connection, which the client
 * sees by the length that it was told. Buffers are given back when the system has taken their bytes, or will take no more.
 *
 * @param open given a signal that is aborted when the client goes away
 */
export async function sendBytes(
  reply: FastifyReply,
  status: number,
  headers: Readonly<Record<string, string>>,
  open: (signal: AbortSignal) => AsyncIterable<Lent>,
): Promise<void> {
  const socket = reply.raw
  const gone = new AbortController()
  const lent = new Set<Lent>() // what the socket still reads
  const leave = () => {
    gone.abort()
    for (const { giveBack } of lent) giveBack()
    lent.clear()
  }
  socket.once('close', leave)
  const bytes = open(gone.signal)[Symbol.asyncIterator]()
  try {
    let next = await bytes.next()
    reply.hijack()
    socket.writeHead(status, { ...(reply.getHeaders() as Record<string, string>), ...headers })
    while (!next.done && !gone.signal.aborted) {
      const buffer = next.value
      lent.add(buffer)
      const hasRoom = socket.write(buffer.bytes, () => {
        buffer.giveBack()
        lent.delete(buffer)
      })
      if (!hasRoom) await drained(socket)
      next = await bytes.next()
    }
    if (!next.done) next.value.giveBack()
    socket.end()
  } catch (error) {
    if (!reply.sent) throw error // nothing is lent yet
    socket.destroy()
    if (!gone.signal.aborted) throw error
  } finally {
    if (lent.size === 0) socket.off('close', leave)
    await bytes.return?.()
  }
}

function drained(socket: FastifyReply['raw']): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      resolve()
    }
    socket.once('drain', done)
    socket.once('close', done)
    if (socket.destroyed) done()
  })
}
