import type { Socket } from 'node:net'
import { MiB } from '../../base/units.ts'

/** One write to the socket takes at most about so much: only at its end is it seen that the client takes anything at all. */
const MAX_WRITE_BYTES = 2 * MiB

/** What waits until the kernel has its bytes: memory is given back then. */
export interface Sent {
  sent(): void
}

/** Bytes that a client has to take, or to send, and since when (ms of the epoch). */
export interface Owed {
  readonly sinceMs: number
  readonly bytes: number
}

/**
 * Replies on their way to one client. One write is under way at a time; what comes meanwhile, or in the same turn of the event
 * loop, leaves together in the next one.
 */
export class Outbox {
  readonly #socket: Socket
  readonly #flushed = () => this.#flush()
  readonly #written = () => this.#afterWrite()
  /** Called when nothing is left to send. */
  readonly #drained: () => void
  #parts: Buffer[] = []
  /** For each part who waits for it: the owner of a reply waits for its last part. */
  #owners: (Sent | null)[] = []
  #sending: readonly (Sent | null)[] = []
  #isScheduled = false
  #isWriting = false
  #isAbandoned = false
  #writingSinceMs = 0
  #writingBytes = 0

  constructor(socket: Socket, drained: () => void) {
    this.#socket = socket
    this.#drained = drained
  }

  get isEmpty(): boolean {
    return !this.#isWriting && this.#parts.length === 0
  }
  /** Null: the client keeps up. */
  get owed(): Owed | null {
    return this.#isWriting ? { sinceMs: this.#writingSinceMs, bytes: this.#writingBytes } : null
  }

  /** A part of a reply that has more parts. */
  add(part: Buffer): void {
    this.#push(part, null)
  }

  /** A reply's last part. @param more whether other replies are likely to follow within this turn of the event loop */
  end(part: Buffer, owner: Sent, more: boolean): void {
    if (this.#isAbandoned) {
      owner.sent()
      return
    }
    this.#push(part, owner)
    if (this.#isScheduled || this.#isWriting) return
    this.#isScheduled = true
    if (more) setImmediate(this.#flushed)
    else process.nextTick(this.#flushed)
  }

  /** The connection is closed: nothing is sent any more, and what was to be sent is given back. */
  abandon(): void {
    this.#isAbandoned = true
    const owners = [...this.#sending, ...this.#owners]
    this.#sending = []
    this.#owners = []
    this.#parts = []
    this.#isWriting = false
    for (const owner of owners) owner?.sent()
  }

  #push(part: Buffer, owner: Sent | null): void {
    let rest = part
    while (rest.length > MAX_WRITE_BYTES) {
      this.#parts.push(rest.subarray(0, MAX_WRITE_BYTES))
      this.#owners.push(null)
      rest = rest.subarray(MAX_WRITE_BYTES)
    }
    this.#parts.push(rest)
    this.#owners.push(owner)
  }

  #flush(): void {
    this.#isScheduled = false
    if (this.#isWriting || this.#parts.length === 0) return
    const { parts, bytes } = this.#next()
    this.#isWriting = true
    this.#writingBytes = bytes
    this.#writingSinceMs = Date.now()
    const socket = this.#socket
    if (!socket.writable) return // it is closing: what is left is abandoned with it
    const last = parts.length - 1
    if (last === 0) {
      socket.write(parts[0]!, this.#written)
      return
    }
    socket.cork()
    for (let index = 0; index < last; index += 1) socket.write(parts[index]!)
    socket.write(parts[last]!, this.#written)
    socket.uncork()
  }

  /** Takes what goes into one write out of the queue: nearly always all of it. */
  #next(): { readonly parts: readonly Buffer[]; readonly bytes: number } {
    const parts = this.#parts
    let count = 0
    let bytes = 0
    while (count < parts.length && (count === 0 || bytes + parts[count]!.length <= MAX_WRITE_BYTES)) {
      bytes += parts[count]!.length
      count += 1
    }
    this.#sending = count === parts.length ? this.#owners : this.#owners.slice(0, count)
    this.#parts = count === parts.length ? [] : parts.slice(count)
    this.#owners = count === parts.length ? [] : this.#owners.slice(count)
    return { parts: count === parts.length ? parts : parts.slice(0, count), bytes }
  }

  /** Also where the write failed: the socket closes then. */
  #afterWrite(): void {
    if (this.#isAbandoned) return
    this.#isWriting = false
    const owners = this.#sending
    this.#sending = []
    for (const owner of owners) owner?.sent()
    if (this.#parts.length > 0) this.#flush()
    else if (!this.#isWriting) this.#drained()
  }
}
