import diagnostics from 'node:diagnostics_channel'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'

/** Servers for tests that speak whatever bytes they are told to, and a watch on every connection that this process begins. */

export interface HostileServer {
  readonly port: number
  readonly address: string
  /** The heads of the requests that came, in order. */
  readonly requests: string[]
  connections(): number
  close(): Promise<void>
}

/** @param answer writes what it likes once the head of a request is there */
export async function hostileServer(
  answer: (socket: Socket, head: string, count: number) => void | Promise<void>,
  address = '127.0.0.1',
): Promise<HostileServer> {
  const requests: string[] = []
  const sockets = new Set<Socket>()
  let connections = 0
  const server = createServer((socket) => {
    connections += 1
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    let head = ''
    const onData = (bytes: Buffer): void => {
      head += bytes.toString('latin1')
      if (!head.includes('\r\n\r\n')) return
      socket.off('data', onData).resume()
      requests.push(head)
      Promise.resolve(answer(socket, head, requests.length)).catch(() => socket.destroy())
    }
    socket.on('data', onData)
  })
  server.listen(0, address)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    address,
    requests,
    connections: () => connections,
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

export const reply = (socket: Socket, head: string, body: string | Uint8Array = ''): void => {
  socket.write(Buffer.from(`${head}\r\n\r\n`, 'utf8'))
  socket.end(body)
}
export const ok = (body: Uint8Array, more = ''): string =>
  `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}${more === '' ? '' : `\r\n${more}`}`

/** Every address that this process tries to connect to, from now until `stop`. */
export function watchConnects(): { readonly addresses: string[]; stop(): void } {
  const addresses: string[] = []
  const onSocket = (message: unknown): void => {
    const { socket } = message as { socket: Socket }
    socket.on('connectionAttempt', (address: string) => addresses.push(address))
    socket.on('lookup', (_error, address: string) => addresses.push(`looked up ${address}`))
  }
  diagnostics.subscribe('net.client.socket', onSocket)
  return { addresses, stop: () => diagnostics.unsubscribe('net.client.socket', onSocket) }
}
