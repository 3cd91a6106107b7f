import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { ServiceError } from '../../base/errors.ts'

/** RFC 6455, section 1.3. */
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const VERSION = '13'

export const acceptFor = (key: string): string =>
  createHash('sha1')
    .update(key + GUID)
    .digest('base64')

/** Whether a request asks for a WebSocket at all: section 4.2.1, and 9.1 of RFC 9110 for the words of a list. */
export const asksForWebSocket = ({ headers }: Pick<IncomingMessage, 'headers'>): boolean =>
  wordsOf(headers.upgrade).includes('websocket') && wordsOf(headers.connection).includes('upgrade')

/**
 * What the server answers a client's handshake with.
 * @param protocol the one subprotocol that is spoken here, chosen where the client offers it
 * @throws ServiceError `invalid-request`; `denied` where a browser says that the page of another host asks
 */
export function answerHandshake({ method, headers }: IncomingMessage, protocol: string): string {
  const key = headers['sec-websocket-key'] ?? ''
  must(method === 'GET', 'a WebSocket is asked for by GET')
  must(headers['sec-websocket-version'] === VERSION, `WebSockets of version ${VERSION} are spoken here`)
  must(Buffer.from(key, 'base64').length === 16, 'Sec-WebSocket-Key must be 16 bytes in base64')
  assertSameOrigin(headers)
  const offered = wordsOf(headers['sec-websocket-protocol'])
  must(offered.length === 0 || offered.includes(protocol), `the subprotocol that is spoken here is "${protocol}"`)
  return [
    'HTTP/1.1 101 Switching Protocols',
    'upgrade: websocket',
    'connection: Upgrade',
    `sec-websocket-accept: ${acceptFor(key)}`,
    ...(offered.length > 0 ? [`sec-websocket-protocol: ${protocol}`] : []),
    '\r\n',
  ].join('\r\n')
}

/** Pages of other hosts may open WebSockets to here in their visitors' name: section 10.2. Who is no browser says nothing. */
function assertSameOrigin({ origin, host }: IncomingMessage['headers']): void {
  if (origin === undefined) return
  const from = URL.canParse(origin) ? new URL(origin).host : ''
  if (from !== '' && from === host?.toLowerCase().replace(/:(80|443)$/, '')) return
  if (from !== '' && from === host?.toLowerCase()) return
  throw new ServiceError('denied', 'pages of another host may not open a WebSocket here')
}

const wordsOf = (header: string | undefined): string[] =>
  (header ?? '')
    .split(',')
    .map((word) => word.trim().toLowerCase())
    .filter(Boolean)

function must(holds: boolean, problem: string): asserts holds {
  if (!holds) throw new ServiceError('invalid-request', problem)
}
