import type { Socket } from 'node:net'
import { isServiceError } from '../../base/errors.ts'
import { KiB } from '../../base/units.ts'
import { isZero } from '../../disk/block/zero.ts'
import { blockStatus, STATUS_REPLY_BYTES } from './block-status.ts'
import type { NbdCounters } from './counters.ts'
import { errnoOf } from './errno.ts'
import type { Export } from './export.ts'
import type { NbdLimits } from './limits.ts'
import type { NbdLog } from './log.ts'
import type { MemoryBudget } from './memory-budget.ts'
import { Outbox, type Owed, type Sent } from './outbox.ts'
import {
  COMMAND,
  COMMAND_FLAG,
  DATA_CHUNK_HEADER_BYTES,
  ERRNO,
  type Errno,
  OFFERS,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_REPLY_BYTES,
} from './protocol.ts'
import { dataHeader, errorChunk, holeChunk, putDataHeader, putSimpleHeader, simpleReply, statusChunk } from './replies.ts'
import { HEADROOM_BYTES, roomFor, type Slab, type SlabPool } from './slab-pool.ts'

/** What a request costs beyond its data: its record, promises and reply header. */
const REQUEST_OVERHEAD_BYTES = 1 * KiB
/** Stretches of zeros in the answer to a READ that become holes: shorter ones would cost more headers than they save. */
const HOLE_GRAIN_BYTES = 64 * KiB
/** What a client may send after a WRITE that is too long, and still be told so; beyond that the connection ends. */
const SKIPPED_WRITES = 2
/** Failures that one connection may put into the log; all are counted. */
const MAX_LOGGED_FAILURES = 10
export const CONTEXT_ID = 1

/** What the handshake agreed on. */
export interface Agreement {
  readonly exported: Export
  /** For the log. */
  readonly address: string
  /** Transmission flags. */
  readonly offers: number
  readonly isStructured: boolean
  /** `base:allocation` was chosen. */
  readonly hasContext: boolean
}

/** What all sessions of a server share. */
export interface SessionContext {
  readonly limits: NbdLimits
  readonly shared: MemoryBudget
  readonly slabs: SlabPool
  readonly counters: NbdCounters
  readonly log: NbdLog
}

/** A request that was let in. It holds its memory until its reply is with the kernel. */
class Request implements Sent {
  readonly session: Session
  readonly command: number
  readonly flags: number
  readonly cookieHigh: number
  readonly cookieLow: number
  readonly offset: number
  readonly length: number
  readonly costBytes: number
  readonly isOnShared: boolean
  slab: Slab | null = null

  constructor(
    session: Session,
    header: Buffer,
    at: number,
    offset: number,
    length: number,
    costBytes: number,
    isOnShared: boolean,
  ) {
    this.session = session
    this.flags = header.readUInt16BE(at + 4)
    this.command = header.readUInt16BE(at + 6)
    this.cookieHigh = header.readUInt32BE(at + 8)
    this.cookieLow = header.readUInt32BE(at + 12)
    this.offset = offset
    this.length = length
    this.costBytes = costBytes
    this.isOnShared = isOnShared
  }

  sent(): void {
    this.session.finished(this)
  }
}

/** The bytes of a WRITE on their way in. */
interface Incoming {
  readonly request: Request
  readonly sinceMs: number
  doneBytes: number
}

/**
 * The transmission phase of one connection. Requests are read from the socket's own buffers and started as they come; replies
 * leave as they are ready, in any order. A request gets in when its memory is free: until then the socket is not read, so a client that
 * sends without end, or takes no replies, fills its own side only.
 */
export class Session {
  readonly #socket: Socket
  readonly #agreement: Agreement
  readonly #context: SessionContext
  readonly #outbox: Outbox
  readonly #ended: () => void
  readonly #wake = () => this.#goOn()
  readonly #resume = () => this.#goOn()
  /** A request's header that came in pieces. */
  readonly #carry = Buffer.alloc(REQUEST_BYTES)
  #carryBytes = 0
  #carrySinceMs = 0
  #incoming: Incoming | null = null
  #skipBytes = 0
  /** What was received and waits until there is memory for its first request. */
  #held: Buffer | null = null
  #requests = 0
  #unanswered = 0
  /** The last BLOCK_STATUS that was begun. */
  #walk: Promise<void> = Promise.resolve()
  #ownBytes = 0
  #usedBytes = 0
  #failures = 0
  #lastRequestMs = Date.now()
  /** Nothing more is taken in: after DISC, the client's end, our closing, or an error. */
  #isClosing = false
  #isShuttingDown = false
  #isClosed = false
  #isResumeScheduled = false

  /** @param ended called once, when the connection is closed and no request is under way */
  constructor(socket: Socket, agreement: Agreement, context: SessionContext, ended: () => void) {
    this.#socket = socket
    this.#agreement = agreement
    this.#context = context
    this.#ended = ended
    this.#outbox = new Outbox(socket, () => this.#endWhenDone())
  }

  /** @param received what came behind the handshake */
  start(received: Buffer): void {
    const socket = this.#socket
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('end', () => this.#close())
    socket.on('close', () => this.#closed())
    const { revoked } = this.#agreement.exported
    revoked.addEventListener('abort', this.#revoke)
    if (revoked.aborted) this.#revoke()
    if (socket.destroyed) this.#closed()
    else {
      if (received.length > 0) this.#receive(received)
      if (this.#held === null) socket.resume()
    }
  }

  /** Requests under way finish, later ones are told ESHUTDOWN, and when no reply is left to send the connection ends. */
  shutDown(): void {
    this.#isShuttingDown = true
    this.#endWhenDone()
  }

  /** The client sends no more. Requests under way finish, their replies leave, the connection ends. */
  #close(): void {
    this.#isClosing = true
    this.#held = null
    this.#endWhenDone()
  }

  /** Ends the connection at once. */
  drop(reason: string): void {
    if (this.#socket.destroyed) return
    this.#context.counters.connectionsDropped += 1
    this.#context.log.info({ address: this.#agreement.address, reason }, 'NBD connection dropped')
    this.#isClosing = true
    this.#socket.destroy()
  }

  /** What the client has to take or to send now. */
  get owed(): Owed | null {
    const incoming = this.#incoming
    if (this.#outbox.owed) return this.#outbox.owed
    if (incoming) return { sinceMs: incoming.sinceMs, bytes: incoming.request.length }
    if (this.#held === null && this.#carryBytes > 0) return { sinceMs: this.#carrySinceMs, bytes: REQUEST_BYTES }
    return null
  }
  get usesShared(): boolean {
    return this.#usedBytes > this.#ownBytes
  }
  /** Since when there is no request, in ms of the epoch; null while one is under way. */
  get idleSinceMs(): number | null {
    return this.#requests === 0 ? this.#lastRequestMs : null
  }

  readonly #revoke = () => this.drop('the export was revoked')

  #closed(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#isClosing = true
    this.#held = null
    this.#context.shared.forget(this.#wake)
    this.#agreement.exported.revoked.removeEventListener('abort', this.#revoke)
    const incoming = this.#incoming
    this.#incoming = null
    const isLast = this.#requests === 0
    if (incoming) this.finished(incoming.request)
    this.#outbox.abandon()
    if (isLast) this.#ended()
  }

  #endWhenDone(): void {
    if (this.#isClosed || !this.#outbox.isEmpty) return
    const cutOff = this.#isClosing && this.#incoming ? 1 : 0
    if (!(this.#isClosing || this.#isShuttingDown) || this.#requests > cutOff) return
    this.#isClosing = true
    if (cutOff > 0)
      this.#socket.destroy() // the rest of its data never comes
    else this.#socket.end(() => this.#socket.destroy())
  }

  #receive(chunk: Buffer): void {
    if (this.#isClosing) return
    this.#lastRequestMs = Date.now()
    if (this.#held) this.#held = Buffer.concat([this.#held, chunk])
    else this.#parse(chunk)
  }

  /** There may be memory again. */
  #goOn(): void {
    this.#isResumeScheduled = false
    const held = this.#held
    if (held === null || this.#isClosing) return
    this.#held = null
    this.#parse(held)
    if (this.#held === null) this.#socket.resume()
  }

  #parse(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length || this.#carryBytes === REQUEST_BYTES) {
      if (this.#isClosing) return
      if (this.#incoming) {
        at = this.#takeData(this.#incoming, chunk, at)
        continue
      }
      if (this.#skipBytes > 0) {
        const skipped = Math.min(this.#skipBytes, chunk.length - at)
        this.#skipBytes -= skipped
        at += skipped
        continue
      }
      if (this.#carryBytes === 0 && chunk.length - at >= REQUEST_BYTES) {
        if (!this.#begin(chunk, at)) {
          this.#hold(chunk.subarray(at))
          return
        }
        at += REQUEST_BYTES
        continue
      }
      if (this.#carryBytes < REQUEST_BYTES) {
        if (this.#carryBytes === 0) this.#carrySinceMs = this.#lastRequestMs
        const copied = chunk.copy(this.#carry, this.#carryBytes, at)
        this.#carryBytes += copied
        at += copied
        if (this.#carryBytes < REQUEST_BYTES) return
      }
      if (!this.#begin(this.#carry, 0)) {
        this.#hold(chunk.subarray(at))
        return
      }
      this.#carryBytes = 0
    }
  }

  #hold(rest: Buffer): void {
    this.#held = rest
    this.#socket.pause()
  }

  /** One request's header. @returns false: not now, there is no memory for it */
  #begin(header: Buffer, at: number): boolean {
    if (header.readUInt32BE(at) !== REQUEST_MAGIC) {
      this.drop('a request without its magic')
      return true
    }
    const command = header.readUInt16BE(at + 6)
    // Beyond 2^53 an offset is rounded here; it is still beyond the end of every disk.
    const offset = header.readUInt32BE(at + 16) * 2 ** 32 + header.readUInt32BE(at + 20)
    const length = header.readUInt32BE(at + 24)
    if (command === COMMAND.DISC) {
      this.#context.counters.requests.DISC += 1
      this.#close()
      return true
    }
    const errno = this.#refusal(command, header.readUInt16BE(at + 4), offset, length)
    const hasData = errno === 0 && (command === COMMAND.READ || command === COMMAND.WRITE)
    const extraBytes = hasData ? roomFor(length) : command === COMMAND.BLOCK_STATUS ? STATUS_REPLY_BYTES : 0
    const costBytes = REQUEST_OVERHEAD_BYTES + extraBytes
    const pot = this.#admit(costBytes)
    if (pot === null) return false
    this.#requests += 1
    this.#unanswered += 1
    const request = new Request(this, header, at, offset, length, costBytes, pot === 'shared')
    if (command === COMMAND.WRITE && errno !== 0) this.#skipData(request, errno)
    else if (errno !== 0) this.#fail(request, errno)
    else if (command === COMMAND.WRITE) this.#incoming = { request, sinceMs: Date.now(), doneBytes: 0 }
    else this.#run(request, () => this.#start(request))
    return true
  }

  /** A disk that throws where it should reject ends one request, not the service. */
  #run(request: Request, start: () => void): void {
    try {
      start()
    } catch (error) {
      this.#failed(request, error)
    }
  }

  #admit(costBytes: number): 'own' | 'shared' | null {
    const { limits, shared } = this.#context
    if (this.#requests >= limits.connectionRequests) return null
    if (this.#ownBytes + costBytes <= limits.shareBytes) {
      this.#ownBytes += costBytes
      this.#usedBytes += costBytes
      return 'own'
    }
    if (this.#usedBytes > 0 && this.#usedBytes + costBytes > limits.connectionBytes) return null
    if (!shared.take(costBytes)) {
      shared.wait(this.#wake)
      return null
    }
    this.#usedBytes += costBytes
    return 'shared'
  }

  /** Why a request is refused before anything is done for it; 0: it is not. */
  #refusal(command: number, flags: number, offset: number, length: number): Errno | 0 {
    const { offers, exported, hasContext } = this.#agreement
    const { disk, writer } = exported
    const isWrite = command === COMMAND.WRITE || command === COMMAND.WRITE_ZEROES || command === COMMAND.TRIM
    // "It SHOULD return EPERM if it receives a write or trim request on a read-only export."
    if (isWrite && !writer) return ERRNO.EPERM
    if (this.#isShuttingDown) return ERRNO.ESHUTDOWN
    if (!isOffered(command, offers, hasContext) || (flags & ~flagsOf(command, offers)) !== 0) return ERRNO.EINVAL
    if (command === COMMAND.FLUSH) return offset === 0 && length === 0 ? 0 : ERRNO.EINVAL
    if (length === 0) return ERRNO.EINVAL
    // "The server SHOULD return ENOSPC if it receives a write request including one or more sectors beyond the size."
    if (offset > disk.size || length > disk.size - offset)
      return command === COMMAND.WRITE || command === COMMAND.WRITE_ZEROES ? ERRNO.ENOSPC : ERRNO.EINVAL
    if ((command === COMMAND.READ || command === COMMAND.WRITE) && length > this.#context.limits.maxRequestBytes) {
      return (flags & COMMAND_FLAG.DF) !== 0 ? ERRNO.EOVERFLOW : ERRNO.EINVAL
    }
    const { minimumBytes } = exported.blockSizes
    if (minimumBytes > 1 && (offset % minimumBytes !== 0 || length % minimumBytes !== 0)) return ERRNO.EINVAL
    if ((flags & COMMAND_FLAG.FAST_ZERO) !== 0 && ((flags & COMMAND_FLAG.NO_HOLE) !== 0 || !writer?.zeroesAreFast))
      return ERRNO.ENOTSUP
    return 0
  }

  /** A WRITE that is refused: its data comes all the same, and must be passed over to find the next request. */
  #skipData(request: Request, errno: Errno): void {
    if (request.length > SKIPPED_WRITES * this.#context.limits.maxRequestBytes) {
      this.finished(request)
      this.drop('a WRITE far beyond the maximum')
      return
    }
    this.#skipBytes = request.length
    this.#fail(request, errno)
  }

  /** @returns where in `chunk` the data ends */
  #takeData(incoming: Incoming, chunk: Buffer, at: number): number {
    const { request } = incoming
    const end = Math.min(chunk.length, at + request.length - incoming.doneBytes)
    if (incoming.doneBytes === 0 && end - at === request.length) {
      this.#incoming = null
      this.#run(request, () => this.#write(request, chunk.subarray(at, end)))
      return end
    }
    request.slab ??= this.#context.slabs.take(request.length)
    chunk.copy(request.slab.room, incoming.doneBytes, at, end)
    incoming.doneBytes += end - at
    if (incoming.doneBytes === request.length) {
      this.#incoming = null
      const bytes = request.slab.room.subarray(0, request.length)
      this.#run(request, () => this.#write(request, bytes))
    }
    return end
  }

  #start(request: Request): void {
    const { requests } = this.#context.counters
    const { writer, prefetch } = this.#agreement.exported
    const { command, flags, offset, length } = request
    if (command === COMMAND.READ) {
      requests.READ += 1
      this.#read(request)
    } else if (command === COMMAND.FLUSH) {
      requests.FLUSH += 1
      this.#change(request, writer!.flush(), false)
    } else if (command === COMMAND.TRIM) {
      requests.TRIM += 1
      this.#change(request, writer!.trim(offset, length), true)
    } else if (command === COMMAND.WRITE_ZEROES) {
      requests.WRITE_ZEROES += 1
      this.#change(request, writer!.writeZeroes(offset, length, (flags & COMMAND_FLAG.NO_HOLE) === 0), true)
    } else if (command === COMMAND.CACHE) {
      requests.CACHE += 1
      this.#change(request, prefetch!(offset, length), false)
    } else {
      requests.BLOCK_STATUS += 1
      this.#status(request)
    }
  }

  #read(request: Request): void {
    const { offset, length } = request
    const slab = this.#context.slabs.take(length)
    request.slab = slab
    const into = slab.room.length === length ? slab.room : slab.room.subarray(0, length)
    this.#agreement.exported.disk.read(offset, length, into).then(
      (bytes) => this.#answer(request, slab, into, bytes),
      (error: unknown) => this.#failed(request, error),
    )
  }

  #answer(request: Request, slab: Slab, into: Buffer, bytes: Uint8Array): void {
    const { length } = request
    if (bytes.length !== length) {
      this.#failed(request, new Error(`the disk answered ${bytes.length} bytes of ${length}`))
      return
    }
    this.#context.counters.bytesRead += length
    const isContiguous = bytes === into
    const { isStructured } = this.#agreement
    if (isStructured && (request.flags & COMMAND_FLAG.DF) === 0 && this.#answerWithHoles(request, bytes)) return
    const headerBytes = isStructured ? DATA_CHUNK_HEADER_BYTES : SIMPLE_REPLY_BYTES
    const start = HEADROOM_BYTES - headerBytes
    if (isStructured) putDataHeader(slab.view, start, request, request.offset, length, true)
    else putSimpleHeader(slab.view, start, request, 0)
    if (isContiguous) {
      this.#reply(request, slab.buffer.subarray(start, HEADROOM_BYTES + length))
      return
    }
    this.#outbox.add(slab.buffer.subarray(start, HEADROOM_BYTES))
    this.#reply(request, bufferOf(bytes))
  }

  /** Answers with chunks where some grain of the bytes is zeros. @returns false: there is none */
  #answerWithHoles(request: Request, bytes: Uint8Array): boolean {
    const { offset, length } = request
    if (length <= HOLE_GRAIN_BYTES) {
      if (!isZero(bytes)) return false
      this.#reply(request, holeChunk(request, offset, length, true))
      return true
    }
    const runs = zeroRuns(bytes)
    if (runs.length === 1 && !runs[0]!.isZero) return false
    const last = runs.length - 1
    const whole = bufferOf(bytes)
    runs.forEach(({ from, to, isZero }, index) => {
      if (!isZero) this.#outbox.add(dataHeader(request, offset + from, to - from, index === last))
      const part = isZero ? holeChunk(request, offset + from, to - from, index === last) : whole.subarray(from, to)
      if (index === last) this.#reply(request, part)
      else this.#outbox.add(part)
    })
    return true
  }

  #write(request: Request, bytes: Uint8Array): void {
    this.#context.counters.requests.WRITE += 1
    this.#context.counters.bytesWritten += bytes.length
    this.#change(request, this.#agreement.exported.writer!.write(request.offset, bytes), true)
  }

  /** Replies when the change is made and, with FUA, durable. */
  #change(request: Request, change: Promise<void>, isWrite: boolean): void {
    const isDurable = isWrite && (request.flags & COMMAND_FLAG.FUA) !== 0
    const done = isDurable ? change.then(() => this.#agreement.exported.writer!.flush()) : change
    done.then(
      () => this.#reply(request, simpleReply(request, 0)),
      (error: unknown) => this.#failed(request, error),
    )
  }

  /** One after the other: a thousand walks over the extents of a disk at once would leave nothing of the thread to others. */
  #status(request: Request): void {
    const { disk } = this.#agreement.exported
    const most = (request.flags & COMMAND_FLAG.REQ_ONE) !== 0 ? 1 : undefined
    this.#walk = this.#walk
      .then(() => (this.#isClosed ? [] : blockStatus(disk, request.offset, request.length, most)))
      .then(
        (descriptors) => this.#reply(request, statusChunk(request, CONTEXT_ID, descriptors)),
        (error: unknown) => this.#failed(request, error),
      )
  }

  /** Its memory is not used again: a part of the read or write may still be under way in it, and would meet another's bytes. */
  #failed(request: Request, error: unknown): void {
    request.slab = null
    const { log } = this.#context
    this.#failures += 1
    const { command, offset, length } = request
    if (this.#failures <= MAX_LOGGED_FAILURES) {
      const level = isServiceError(error) ? 'warn' : 'error'
      log[level]({ err: error, address: this.#agreement.address, command, offset, length }, 'a request on an NBD export failed')
    }
    this.#fail(request, errnoOf(error))
  }

  #fail(request: Request, errno: Errno): void {
    this.#context.counters.requestErrors += 1
    this.#reply(request, this.#agreement.isStructured ? errorChunk(request, errno) : simpleReply(request, errno))
  }

  #reply(request: Request, lastPart: Buffer): void {
    this.#unanswered -= 1
    this.#outbox.end(lastPart, request, this.#unanswered > 0)
  }

  /** A request's memory is free again. */
  finished(request: Request): void {
    const { shared, slabs } = this.#context
    this.#requests -= 1
    this.#usedBytes -= request.costBytes
    if (request.slab) slabs.give(request.slab)
    request.slab = null
    if (request.isOnShared) shared.give(request.costBytes)
    else this.#ownBytes -= request.costBytes
    if (this.#held !== null && !this.#isResumeScheduled) {
      this.#isResumeScheduled = true
      process.nextTick(this.#resume)
    }
    if (this.#isClosed && this.#requests === 0) this.#ended()
  }
}

interface Run {
  readonly from: number
  readonly isZero: boolean
  to: number
}

/** The stretches of zeros and of others, in grains that start at multiples of the grain within `bytes`. */
function zeroRuns(bytes: Uint8Array): readonly Run[] {
  const runs: Run[] = []
  for (let from = 0; from < bytes.length; from += HOLE_GRAIN_BYTES) {
    const to = Math.min(from + HOLE_GRAIN_BYTES, bytes.length)
    const zero = bytes[from] === 0 && isZero(bytes.subarray(from, to))
    const open = runs.at(-1)
    if (open && open.isZero === zero) open.to = to
    else runs.push({ from, to, isZero: zero })
  }
  return runs
}

function isOffered(command: number, offers: number, hasContext: boolean): boolean {
  switch (command) {
    case COMMAND.READ:
    case COMMAND.WRITE:
      return true
    case COMMAND.FLUSH:
      return (offers & OFFERS.FLUSH) !== 0
    case COMMAND.TRIM:
      return (offers & OFFERS.TRIM) !== 0
    case COMMAND.WRITE_ZEROES:
      return (offers & OFFERS.WRITE_ZEROES) !== 0
    case COMMAND.CACHE:
      return (offers & OFFERS.CACHE) !== 0
    case COMMAND.BLOCK_STATUS:
      return hasContext
    default:
      return false
  }
}

/** Flags that a command may have. FUA "is valid for all commands" where it is offered. */
function flagsOf(command: number, offers: number): number {
  const common = (offers & OFFERS.FUA) !== 0 ? COMMAND_FLAG.FUA : 0
  if (command === COMMAND.READ) return common | ((offers & OFFERS.DF) !== 0 ? COMMAND_FLAG.DF : 0)
  if (command === COMMAND.WRITE_ZEROES)
    return common | COMMAND_FLAG.NO_HOLE | ((offers & OFFERS.FAST_ZERO) !== 0 ? COMMAND_FLAG.FAST_ZERO : 0)
  if (command === COMMAND.BLOCK_STATUS) return common | COMMAND_FLAG.REQ_ONE
  return common
}

const bufferOf = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
