/**
 * A process that holds connections open: `node held-connections.ts PORT COUNT KIND [PATH,PATH… TOKEN]`, each with the next of the
 * paths. Says `held N` once all that could be opened are, and keeps them until it is killed.
 */
import { connect, type Socket } from 'node:net'

export type Kind = 'idle' | 'slow-headers' | 'slow-body' | 'slow-reader'

const OPENING_AT_ONCE = 100

async function main([port, count, kind, paths = '', token = '']: readonly string[]): Promise<void> {
  const held = new Set<Socket>()
  const path = paths.split(',')
  const firstBytes = (at: number): Record<Kind, string> => ({
    idle: '',
    'slow-headers': 'GET /image/v2/images HTTP/1.1\r\nHost: slow\r\nX-Slow: ',
    'slow-body':
      `PUT ${path[at % path.length]} HTTP/1.1\r\nHost: slow\r\nX-Auth-Token: ${token}\r\n` +
      'Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\nbytes',
    'slow-reader': `GET ${path[at % path.length]} HTTP/1.1\r\nHost: slow\r\nX-Auth-Token: ${token}\r\n\r\n`,
  })
  const open = (at: number) =>
    new Promise<void>((done) => {
      const socket = connect({ port: Number(port), host: '127.0.0.1' })
      socket.once('connect', () => {
        held.add(socket)
        socket.pause()
        socket.write(firstBytes(at)[kind as Kind])
        done()
      })
      socket.on('error', () => done())
      socket.on('close', () => held.delete(socket))
    })
  for (let opened = 0; opened < Number(count); opened += OPENING_AT_ONCE) {
    await Promise.all(Array.from({ length: Math.min(OPENING_AT_ONCE, Number(count) - opened) }, (_, at) => open(opened + at)))
  }
  process.stdout.write(`held ${held.size}\n`)
  setInterval(() => {
    if (kind === 'slow-headers' || kind === 'slow-body') for (const socket of held) socket.write('x')
  }, 5_000)
}

if (process.argv[1] === import.meta.filename) await main(process.argv.slice(2))
