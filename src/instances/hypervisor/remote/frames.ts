import type { Socket } from 'node:net'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { HostAway } from '../host-away.ts'
import { packed, unpacked } from './packing.ts'

/**
 * What goes between a service and the agent of a host: frames of a head, which is JSON, and a body of bytes.
 *
 *   bytes of the head   u32be
 *   bytes of the body   u32be
 *   head, body
 *
 * Whoever sends waits until the system has taken what it sends, and whoever receives takes one frame at a time, so neither side holds more
 * than a frame.
 */
export interface Frame {
  readonly head: Readonly<Record<string, unknown>>
  readonly body: Buffer
}

const PREFIX_BYTES = 8
/** A seed's disc of 8 MiB in Base64, and the rest. */
const MAX_HEAD_BYTES = 16 * MiB
export const MAX_BODY_BYTES = MiB
const nothing = Buffer.alloc(0)

export class FrameLink {
  readonly socket: Socket
  /** Who waits for bytes, or for their end. */
  #wake = () => {}
  readonly #look = () => this.#wake()

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('error', () => socket.destroy()) // `close` follows
    // for as long as frames are read: one that is added while bytes wait is called at once, for ever
    socket.on('readable', this.#look).on('end', this.#look).on('close', this.#look)
  }

  get isOver(): boolean {
    return this.socket.destroyed || this.socket.writableEnded
  }

  /**
   * Settles when the system has taken it. Frames that are sent at once go in their order.
   * @throws ServiceError `unavailable` where the other side is gone; `too-large` for a head that no frame can have
   */
  async send(head: object, body: Uint8Array = nothing): Promise<void> {
    const text = Buffer.from(JSON.stringify(packed(head)))
    if (text.length > MAX_HEAD_BYTES || body.length > MAX_BODY_BYTES) {
      throw new ServiceError('too-large', `What is said to the agent of a host has at most ${MAX_HEAD_BYTES} bytes.`)
    }
    const prefix = Buffer.alloc(PREFIX_BYTES)
    prefix.writeUInt32BE(text.length, 0)
    prefix.writeUInt32BE(body.length, 4)
    await new Promise<void>((taken, refused) => {
      if (this.isOver) return refused(hungUp())
      this.socket.write(Buffer.concat([prefix, text, body]), (error) => (error ? refused(hungUp()) : taken()))
    })
  }

  /**
   * Null where the other side is gone, between two frames or within one.
   * @throws ServiceError `unavailable` for what is no frame, or larger than any: the connection is over then
   */
  async next(): Promise<Frame | null> {
    const prefix = await this.#exactly(PREFIX_BYTES)
    if (!prefix) return null
    const [headBytes, bodyBytes] = [prefix.readUInt32BE(0), prefix.readUInt32BE(4)]
    if (headBytes > MAX_HEAD_BYTES || bodyBytes > MAX_BODY_BYTES) throw this.#refuse('says more than there is to say')
    const text = await this.#exactly(headBytes)
    const body = text && (bodyBytes === 0 ? nothing : await this.#exactly(bodyBytes))
    if (!text || !body) return null
    return { head: this.#parsed(text), body }
  }

  /** No more frames come: what follows the last one is for whoever reads the socket. */
  release(): Socket {
    this.socket.off('readable', this.#look).off('end', this.#look).off('close', this.#look)
    return this.socket
  }

  /** What was sent by now arrives. */
  end(): void {
    this.socket.end()
  }

  destroy(): void {
    this.socket.destroy()
  }

  #parsed(text: Buffer): Frame['head'] {
    try {
      const head: unknown = unpacked(JSON.parse(text.toString('utf8')))
      if (typeof head === 'object' && head !== null && !Array.isArray(head)) return head as Frame['head']
    } catch {}
    throw this.#refuse('says what nobody understands')
  }

  #refuse(how: string): ServiceError {
    this.socket.destroy()
    return new HostAway(`The other side of a connection between a service and the agent of a host ${how}.`)
  }

  async #exactly(bytes: number): Promise<Buffer | null> {
    for (;;) {
      const chunk: Buffer | null = this.socket.read(bytes)
      if (chunk) return chunk.length === bytes ? chunk : null
      if (this.socket.readableEnded || this.socket.destroyed) return null
      await new Promise<void>((woken) => {
        this.#wake = woken
      })
    }
  }
}

const hungUp = (): HostAway => new HostAway('The other side has hung up.')
