import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * Ends connections that stand still. Node's own `requestTimeout` counts from the first byte, which cuts an honest upload of an
 * hour; this counts progress: within each window, a client that is sending a body or being sent one must move a least number
 * of bytes. A request that the service itself is thinking about is never cut.
 */
export interface StallGuard {
  watch(server: Server): void
  /** Looks at every connection once and ends the stalled ones; returns how many. The caller decides when. */
  sweep(nowMs: number): number
}

interface Watched {
  exchange: { readonly request: IncomingMessage; readonly response: ServerResponse } | null
  sinceMs: number
  bytesRead: number
  bytesWritten: number
}

/** @param windowMs how long a connection may fall short @param leastBytes what it must move in that time */
export function stallGuard(windowMs: number, leastBytes: number): StallGuard {
  const connections = new Map<Socket, Watched>()
  return {
    watch(server) {
      server.on('connection', (socket: Socket) => {
        connections.set(socket, { exchange: null, sinceMs: 0, bytesRead: 0, bytesWritten: 0 })
        socket.once('close', () => connections.delete(socket))
      })
      server.on('request', (request: IncomingMessage, response: ServerResponse) => {
        const watched = connections.get(request.socket)
        if (!watched) return
        watched.exchange = { request, response }
        watched.sinceMs = 0
        response.once('close', () => {
          watched.exchange = null
        })
      })
    },
    sweep(nowMs) {
      let ended = 0
      for (const [socket, watched] of connections) {
        const waitsForClient =
          watched.exchange !== null &&
          (!watched.exchange.request.complete || socket.writableLength > 0 || watched.exchange.response.writableNeedDrain)
        if (!waitsForClient) {
          watched.sinceMs = 0
          continue
        }
        const moved = socket.bytesRead - watched.bytesRead + (socket.bytesWritten - watched.bytesWritten)
        if (watched.sinceMs === 0 || moved >= leastBytes) {
          watched.sinceMs = nowMs
          watched.bytesRead = socket.bytesRead
          watched.bytesWritten = socket.bytesWritten
          continue
        }
        if (nowMs - watched.sinceMs < windowMs) continue
        socket.destroy()
        ended += 1
      }
      return ended
    },
  }
}
