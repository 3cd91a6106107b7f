import { randomBytes } from 'node:crypto'
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { Socket } from 'node:net'
import { ServiceError } from '../../base/errors.ts'
import { acceptFor } from './handshake.ts'
import { WebSocketStream } from './web-socket-stream.ts'

const CONNECT_MS = 15_000
const MAX_REFUSAL_BYTES = 64 * 1024

/**
 * Opens a WebSocket as its client.
 * @param url `ws://…` or `wss://…`
 * @throws ServiceError `unavailable` where nobody answers, or what answers speaks no WebSocket; `denied` with its own words where
 *   it refuses; `cancelled`
 */
export function connectWebSocket(url: string, protocol: string, signal: AbortSignal): Promise<WebSocketStream> {
  const address = new URL(url)
  const isSecure = address.protocol === 'wss:'
  address.protocol = isSecure ? 'https:' : 'http:'
  const key = randomBytes(16).toString('base64')
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': key,
    'sec-websocket-protocol': protocol,
  }
  return new Promise((resolve, reject) => {
    const outgoing = (isSecure ? requestHttps : requestHttp)(address, { headers, signal, agent: false })
    outgoing.setTimeout(CONNECT_MS, () => outgoing.destroy(new Error('no answer in time')))
    outgoing.on('error', (cause) => reject(signal.aborted ? cancelled(cause) : unreachable(address, cause.message, cause)))
    outgoing.on('response', (answer) => void refusalOf(answer).then(reject, reject))
    outgoing.on('upgrade', ({ headers: answered }: IncomingMessage, socket: Socket, head: Buffer) => {
      if (answered['sec-websocket-accept'] === acceptFor(key))
        return resolve(new WebSocketStream(socket, { role: 'client', head }))
      socket.destroy()
      reject(unreachable(address, 'its handshake is none of a WebSocket'))
    })
    outgoing.end()
  })
}

const cancelled = (cause: unknown): ServiceError => new ServiceError('cancelled', 'interrupted', {}, { cause })
const unreachable = ({ host }: URL, problem: string, cause?: unknown): ServiceError =>
  new ServiceError('unavailable', `the WebSocket at ${host} cannot be opened: ${problem}; try again`, {}, { cause })

async function refusalOf(answer: IncomingMessage): Promise<ServiceError> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of answer as AsyncIterable<Buffer>) {
    parts.push(part)
    bytes += part.length
    if (bytes > MAX_REFUSAL_BYTES) break
  }
  const words = /"message":("(?:[^"\\]|\\.)*")/.exec(Buffer.concat(parts).toString('utf8'))?.[1]
  const message = words ? (JSON.parse(words) as string) : `it was refused with the status ${answer.statusCode}`
  return new ServiceError(answer.statusCode === 409 ? 'conflict' : 'denied', message)
}
