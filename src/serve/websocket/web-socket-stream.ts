import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import {
  type ControlFrame,
  closeCode,
  closePayload,
  encodeFrame,
  FrameReader,
  opcode,
  ProtocolError,
  readClose,
} from './frames.ts'

/** How long the other end may take to answer a close frame. */
const CLOSE_WITHIN_MS = 2_000
/** An end that gives no sign of life for so long is gone: it is asked three times meanwhile. */
const SILENCE_MS = 90_000
/** Answers to pings wait no longer than for so many bytes: who sends pings and reads nothing gets none. */
const MAX_WAITING_BYTES = 64 * 1024

export interface WebSocketOptions {
  /** Which end we are. */
  readonly role: 'server' | 'client'
  /** What came after the handshake with it. */
  readonly head?: Uint8Array
  readonly silenceMs?: number
}

/**
 * A WebSocket as a stream of bytes, both ways. What is written goes out in binary frames, each when the one before it has left this
 * process; what nobody reads is not taken from the connection. So it holds two pieces of the connection at the most, 64 KiB each.
 * It ends by `end`, by `closeWith`, or when the other end goes; `saidClose` has the other end's words.
 */
export class WebSocketStream extends Duplex {
  readonly #socket: Socket
  readonly #isClient: boolean
  readonly #reader: FrameReader
  readonly #pulse: NodeJS.Timeout
  #seen = { read: 0, gone: 0, wasBlocked: false, at: performance.now() }
  #hasSentClose = false
  #isReadingOver = false
  #deadline: NodeJS.Timeout | undefined
  /** What the other end said when it closed; null: it has not, or went without a word. */
  saidClose: { readonly code: number; readonly reason: string } | null = null

  constructor(socket: Socket, { role, head, silenceMs = SILENCE_MS }: WebSocketOptions) {
    super({ autoDestroy: false }) // both directions end before the other end has heard of it
    this.#socket = socket
    this.#isClient = role === 'client'
    this.#reader = new FrameReader(role === 'server', (frame) => this.#control(frame))
    this.#pulse = setInterval(() => this.#feelPulse(silenceMs), silenceMs / 3).unref()
    socket.setNoDelay(true)
    socket.setTimeout(0)
    socket.on('data', (bytes: Buffer) => this.#take(bytes))
    for (const event of ['end', 'error', 'close'] as const) socket.on(event, () => this.#gone())
    if (head && head.length > 0) this.#take(Buffer.from(head))
  }

  /** Says why, and ends. What is to be written or read yet is thrown away; `end` lets it go first. */
  closeWith(code: number, reason: string): void {
    this.#endReading()
    this.#socket.resume() // until the other end answers
    this.#sayClose(code, reason)
  }

  override _read(): void {
    this.#socket.resume()
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#hasSentClose || bytes.length === 0) done()
    else this.#socket.write(this.#frame(opcode.binary, bytes), () => done()) // failed, the socket closes, and that is what counts
  }

  override _final(done: () => void): void {
    this.#sayClose(closeCode.normal, '')
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearInterval(this.#pulse)
    clearTimeout(this.#deadline)
    this.#socket.destroy()
    done(error)
  }

  #take(bytes: Buffer): void {
    if (this.destroyed) return
    try {
      const data = this.#reader.read(bytes)
      const isFull = !this.#isReadingOver && data.length > 0 && !this.push(data)
      if (this.saidClose) this.#endReading()
      else if (isFull) this.#socket.pause()
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.closeWith(closeCode.protocolError, error.message)
      this.#socket.removeAllListeners('data').resume() // what follows means nothing
    }
  }

  #control({ code, payload }: ControlFrame): void {
    if (code === opcode.close) this.#closedByPeer(payload)
    else if (code === opcode.ping && !this.#hasSentClose && this.#socket.writableLength < MAX_WAITING_BYTES) {
      this.#send(opcode.pong, payload)
    }
  }

  #sayClose(code: number, reason: string): void {
    if (this.#hasSentClose || this.destroyed) return
    this.#hasSentClose = true
    this.#send(opcode.close, closePayload(code, reason))
    this.#deadline = setTimeout(() => this.#socket.destroy(), CLOSE_WITHIN_MS)
  }

  /** 5.5.1: who gets a close frame answers with one; the server then closes the connection first (7.1.1). */
  #closedByPeer(payload: Uint8Array): void {
    this.saidClose ??= readClose(payload)
    this.#sayClose(closeCode.normal, '')
    if (!this.#isClient) this.#socket.end()
  }

  /**
   * What comes is a sign of life, the answer to a ping at the least; so is what leaves after it could not, since the other end took
   * something then. While nobody here reads, no sign can be seen.
   */
  #feelPulse(silenceMs: number): void {
    const { bytesRead: read, bytesWritten, writableLength } = this.#socket
    const gone = bytesWritten - writableLength
    const lives = read !== this.#seen.read || (this.#seen.wasBlocked && gone !== this.#seen.gone) || this.#socket.isPaused()
    const now = performance.now()
    if (!lives && now - this.#seen.at >= silenceMs) return void this.destroy()
    this.#seen = { read, gone, wasBlocked: writableLength > 0, at: lives ? now : this.#seen.at }
    if (!this.#hasSentClose && writableLength === 0) this.#send(opcode.ping, new Uint8Array())
  }

  /** The connection is over. A client reads to its end what came before that. */
  #gone(): void {
    if (this.destroyed) return
    if (!this.#isClient || this.readableEnded) return void this.destroy()
    this.#endReading()
    this.once('end', () => this.destroy())
  }

  #endReading(): void {
    if (this.#isReadingOver) return
    this.#isReadingOver = true
    this.push(null)
  }

  #send(code: number, payload: Uint8Array): void {
    if (this.#socket.writable) this.#socket.write(this.#frame(code, payload))
  }

  #frame(code: number, payload: Uint8Array): Buffer {
    return encodeFrame(code, payload, this.#isClient ? randomBytes(4) : undefined)
  }
}
