import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { HostPorts } from '../ports.ts'

/** Asks the system by listening there for a moment. */
export const hostPorts: HostPorts = {
  async isFree({ protocol, hostAddress, hostPort }) {
    try {
      await (protocol === 'tcp' ? listenOnce(hostAddress, hostPort) : bindOnce(hostAddress, hostPort))
      return true
    } catch {
      return false
    }
  },
}

async function listenOnce(host: string, port: number): Promise<void> {
  const server = createServer()
  await once(server.listen({ host, port, exclusive: true }), 'listening')
  await new Promise((closed) => server.close(closed))
}

async function bindOnce(address: string, port: number): Promise<void> {
  const socket = createSocket('udp4')
  try {
    socket.bind({ address, port, exclusive: true })
    await once(socket, 'listening')
  } finally {
    await new Promise<void>((closed) => socket.close(closed))
  }
}
