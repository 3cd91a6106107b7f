import type { Socket } from 'node:net'

/** A client sends nothing of this size before it chose an export, unless it means harm. */
const MAX_WAITING_BYTES = 64 * 1024

/** The client went away. */
export class Disconnected extends Error {}

/** Reads a socket piece by piece while there is no hurry: in the handshake. */
export class HandshakeReader {
  readonly #socket: Socket
  #chunks: Buffer[] = []
  #waitingBytes = 0
  #isOver = false
  #asked: { readonly bytes: number; give(bytes: Buffer): void; fail(error: Error): void } | null = null

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', this.#receive)
    socket.on('end', this.#over)
    socket.on('close', this.#over)
  }

  /** @throws Disconnected when the client sends no more */
  take(bytes: number): Promise<Buffer> {
    if (this.#waitingBytes >= bytes) return Promise.resolve(this.#cut(bytes))
    if (this.#isOver) return Promise.reject(new Disconnected())
    return new Promise((give, fail) => {
      this.#asked = { bytes, give, fail }
      this.#socket.resume()
    })
  }

  /** Stops reading. @returns what came beyond what was taken */
  stop(): Buffer {
    const socket = this.#socket
    socket.pause()
    socket.off('data', this.#receive)
    socket.off('end', this.#over)
    socket.off('close', this.#over)
    const rest: Buffer | null = socket.read()
    if (rest) this.#chunks.push(rest)
    return Buffer.concat(this.#chunks)
  }

  readonly #receive = (chunk: Buffer): void => {
    this.#chunks.push(chunk)
    this.#waitingBytes += chunk.length
    const asked = this.#asked
    if (asked && this.#waitingBytes >= asked.bytes) {
      this.#asked = null
      asked.give(this.#cut(asked.bytes))
    }
    if (this.#asked === null && this.#waitingBytes > MAX_WAITING_BYTES) this.#socket.pause()
  }

  readonly #over = (): void => {
    this.#isOver = true
    this.#asked?.fail(new Disconnected())
    this.#asked = null
  }

  #cut(bytes: number): Buffer {
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    const rest = all.subarray(bytes)
    this.#chunks = rest.length > 0 ? [rest] : []
    this.#waitingBytes = rest.length
    return all.subarray(0, bytes)
  }
}
