import type { Socket } from 'node:net'

/**
 * Objects of JSON, one a line, as QMP and the guest agent speak. The other side may be hostile (a guest, or what broke out of
 * one), so a line has a limit, and what is no object ends the connection.
 * @param maxBytes of one line
 * @param fail told why, once; the socket is destroyed by then
 */
export function readObjects(
  socket: Socket,
  maxBytes: number,
  take: (object: Readonly<Record<string, unknown>>) => void,
  fail: (why: string) => void,
): void {
  let parts: Buffer[] = []
  let bytes = 0
  const refuse = (why: string) => {
    socket.removeListener('data', read)
    socket.destroy()
    fail(why)
  }
  const read = (chunk: Buffer) => {
    for (let rest = chunk; rest.length > 0 && !socket.destroyed; ) {
      const end = rest.indexOf(0x0a)
      const part = end < 0 ? rest : rest.subarray(0, end)
      bytes += part.length
      if (bytes > maxBytes) return refuse(`a line of more than ${maxBytes} bytes`)
      parts.push(part)
      if (end < 0) return
      const line = Buffer.concat(parts).toString('utf8').trim()
      parts = []
      bytes = 0
      rest = rest.subarray(end + 1)
      if (line === '') continue
      const object = objectOf(line)
      if (!object) return refuse('a line that is no JSON object')
      take(object)
    }
  }
  socket.on('data', read)
}

/** Undefined for what is no JSON, or no object. */
export function objectOf(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
