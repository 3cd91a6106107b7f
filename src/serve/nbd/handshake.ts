import type { Socket } from 'node:net'
import type { Export, ExportSource, NbdPeer } from './export.ts'
import { HandshakeReader } from './handshake-reader.ts'
import type { NbdLimits } from './limits.ts'
import {
  type ContextRequest,
  type ExportRequest,
  isMalformed,
  parseContextRequest,
  parseExportRequest,
  parseString,
} from './option-data.ts'
import {
  BASE_ALLOCATION,
  HANDSHAKE_FIXED_NEWSTYLE,
  HANDSHAKE_NO_ZEROES,
  INFO,
  INIT_PASSWD,
  MAX_STRING_BYTES,
  OFFERS,
  OPTION,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  OPTION_REPLY,
  OPTION_REPLY_MAGIC,
} from './protocol.ts'
import { type Agreement, CONTEXT_ID } from './session.ts'
import type { TlsUpgrade } from './tls.ts'

/** What a client may ask before it chooses; LIST counts as two. What real clients need is below ten. */
const MAX_OPTIONS = 32
/** The longest data that an option means something with: a name and a few queries, all of the greatest length … */
const MAX_OPTION_BYTES = 16 * 1024
/** … and what is read to be able to say that it is too long. */
const MAX_SKIPPED_BYTES = 64 * 1024
const ZEROES_BYTES = 124

/** The client broke the protocol, or what it asked for cannot be had: the connection ends. The message is for the log. */
export class Refused extends Error {}
/** The client said that it is done. */
export class Aborted extends Error {}

export interface HandshakeContext {
  readonly exports: ExportSource
  readonly limits: NbdLimits
  readonly tls: TlsUpgrade | null
  readonly address: string
  readonly isClosing: () => boolean
  /** Told of the socket in TLS, which replaces the one that the client came by. */
  readonly secured: (socket: Socket) => void
  /** Counts a connection to an export. @returns false: there are too many */
  readonly admit: (name: string) => boolean
}

export interface Chosen {
  /** The one to go on with: another than the client came by where TLS was started. */
  readonly socket: Socket
  readonly name: string
  readonly agreement: Agreement
  /** What the client sent behind the handshake. */
  readonly received: Buffer
}

interface Option {
  readonly code: number
  readonly data: Buffer
}

/**
 * The handshake of one connection: fixed newstyle. The data of an option is read only up to its limit, and nothing is opened but
 * what a client names.
 * @throws Disconnected, Refused, Aborted; what an export source throws passes through
 */
export async function handshake(socket: Socket, context: HandshakeContext): Promise<Chosen> {
  return new Handshake(socket, context).run()
}

class Handshake {
  readonly #context: HandshakeContext
  #socket: Socket
  #reader: HandshakeReader
  #peer: NbdPeer
  #isFixed = false
  #withoutZeroes = false
  #isStructured = false
  /** The export for which `base:allocation` was chosen. */
  #contextOf: string | null = null
  #options = 0

  constructor(socket: Socket, context: HandshakeContext) {
    this.#socket = socket
    this.#context = context
    this.#reader = new HandshakeReader(socket)
    this.#peer = { tls: false, identity: null, address: context.address }
  }

  async run(): Promise<Chosen> {
    await this.#greet()
    for (;;) {
      const option = await this.#nextOption()
      if (!option) continue
      const chosen = await this.#answer(option)
      if (chosen) return chosen
    }
  }

  async #greet(): Promise<void> {
    const hello = Buffer.alloc(18)
    put64(hello, 0, INIT_PASSWD)
    put64(hello, 8, OPTION_MAGIC)
    hello.writeUInt16BE(HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES, 16)
    this.#socket.write(hello)
    const flags = (await this.#reader.take(4)).readUInt32BE(0)
    // "The server MUST drop the TCP connection if the client sets an unknown flag."
    if ((flags & ~(HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES)) !== 0) throw new Refused('unknown client flags')
    this.#isFixed = (flags & HANDSHAKE_FIXED_NEWSTYLE) !== 0
    this.#withoutZeroes = (flags & HANDSHAKE_NO_ZEROES) !== 0
  }

  /** @returns null: one that was too long, and was told so */
  async #nextOption(): Promise<Option | null> {
    const header = await this.#reader.take(OPTION_HEADER_BYTES)
    if (header.readUInt32BE(0) !== OPTION_MAGIC[0] || header.readUInt32BE(4) !== OPTION_MAGIC[1]) {
      throw new Refused('an option without its magic')
    }
    const code = header.readUInt32BE(8)
    const bytes = header.readUInt32BE(12)
    this.#options += code === OPTION.LIST ? 2 : 1
    if (this.#options > MAX_OPTIONS) throw new Refused('too many options')
    // "This is the only valid option in nonfixed newstyle negotiation."
    if (!this.#isFixed && code !== OPTION.EXPORT_NAME) throw new Refused('an option from a client without fixed newstyle')
    if (bytes > MAX_SKIPPED_BYTES) throw new Refused('an option that is far too long')
    const data = await this.#reader.take(bytes)
    if (bytes <= MAX_OPTION_BYTES) return { code, data }
    if (code === OPTION.EXPORT_NAME) throw new Refused('an export name that is too long')
    this.#reply(code, OPTION_REPLY.ERR_TOO_BIG, `more than ${MAX_OPTION_BYTES} bytes of data`)
    return null
  }

  /** @returns what was chosen, when the handshake is over */
  async #answer({ code, data }: Option): Promise<Chosen | null> {
    const { tls, isClosing } = this.#context
    if (code === OPTION.ABORT) {
      this.#reply(code, OPTION_REPLY.ACK)
      throw new Aborted()
    }
    if (tls?.mode === 'required' && !this.#peer.tls && code !== OPTION.STARTTLS) {
      if (code === OPTION.EXPORT_NAME) throw new Refused('an export without TLS')
      this.#reply(code, OPTION_REPLY.ERR_TLS_REQD, 'start TLS first')
      return null
    }
    if (isClosing()) {
      if (code === OPTION.EXPORT_NAME) throw new Refused('the server is closing')
      this.#reply(code, OPTION_REPLY.ERR_SHUTDOWN, 'the server is closing; connect again later')
      return null
    }
    switch (code) {
      case OPTION.EXPORT_NAME:
        return this.#exportName(data)
      case OPTION.GO:
      case OPTION.INFO:
        return this.#withParsed(code, parseExportRequest(data), (asked) => this.#info(code, asked))
      case OPTION.LIST:
        await this.#list(data)
        return null
      case OPTION.STARTTLS:
        await this.#startTls(data)
        return null
      case OPTION.STRUCTURED_REPLY:
        if (data.length > 0) return this.#refuse(code, 'this option has no data')
        this.#isStructured = true
        this.#reply(code, OPTION_REPLY.ACK)
        return null
      case OPTION.LIST_META_CONTEXT:
      case OPTION.SET_META_CONTEXT:
        return this.#withParsed(code, parseContextRequest(data), (asked) => this.#metaContext(code, asked))
      default:
        this.#reply(code, OPTION_REPLY.ERR_UNSUP, 'an option that is not known here')
        return null
    }
  }

  async #withParsed<T extends object>(
    code: number,
    parsed: T | { readonly problem: string },
    answer: (asked: T) => Promise<Chosen | null>,
  ): Promise<Chosen | null> {
    return isMalformed(parsed) ? this.#refuse(code, parsed.problem) : answer(parsed as T)
  }

  /** The old way to choose: errors have no words in it, so the connection ends. */
  async #exportName(data: Buffer): Promise<Chosen> {
    const name = parseString(data)
    if (isMalformed(name)) throw new Refused(`an export name that is ${name.problem}`)
    const exported = await this.#open(name)
    if (!exported) throw new Refused('an unknown export')
    return this.#choose(name, exported, (offers) => {
      const reply = Buffer.alloc(10 + (this.#withoutZeroes ? 0 : ZEROES_BYTES))
      reply.writeBigUInt64BE(BigInt(exported.disk.size), 0)
      reply.writeUInt16BE(offers, 8)
      this.#socket.write(reply)
    })
  }

  async #info(code: number, { name, information }: ExportRequest): Promise<Chosen | null> {
    const exported = await this.#open(name)
    if (!exported) return this.#unknown(code)
    const { blockSizes, disk, description } = exported
    if (blockSizes.minimumBytes > 1 && !information.includes(INFO.BLOCK_SIZE)) {
      await exported.release()
      this.#reply(code, OPTION_REPLY.ERR_BLOCK_SIZE_REQD, `requests must be multiples of ${blockSizes.minimumBytes} bytes`)
      return null
    }
    const tell = (offers: number) => {
      const size = Buffer.alloc(10)
      size.writeBigUInt64BE(BigInt(disk.size), 0)
      size.writeUInt16BE(offers, 8)
      this.#replyInfo(code, INFO.EXPORT, size)
      if (information.includes(INFO.NAME)) this.#replyInfo(code, INFO.NAME, Buffer.from(name))
      if (information.includes(INFO.DESCRIPTION) && description !== '')
        this.#replyInfo(code, INFO.DESCRIPTION, shortened(description))
      if (information.includes(INFO.BLOCK_SIZE)) {
        const sizes = Buffer.alloc(12)
        sizes.writeUInt32BE(blockSizes.minimumBytes, 0)
        sizes.writeUInt32BE(blockSizes.preferredBytes, 4)
        sizes.writeUInt32BE(this.#context.limits.maxRequestBytes, 8)
        this.#replyInfo(code, INFO.BLOCK_SIZE, sizes)
      }
      this.#reply(code, OPTION_REPLY.ACK)
    }
    if (code === OPTION.GO) return this.#choose(name, exported, tell)
    tell(this.#offersOf(exported))
    await exported.release()
    return null
  }

  /** Ends the handshake. @param tell answers the client, from when on it may send requests */
  async #choose(name: string, exported: Export, tell: (offers: number) => void): Promise<Chosen> {
    if (!this.#context.admit(name)) {
      await exported.release()
      throw new Refused('too many connections')
    }
    const offers = this.#offersOf(exported)
    const received = this.#reader.stop()
    tell(offers)
    const agreement = {
      exported,
      address: this.#peer.address,
      offers,
      isStructured: this.#isStructured,
      hasContext: this.#contextOf === name,
    }
    return { socket: this.#socket, name, agreement, received }
  }

  async #list(data: Buffer): Promise<void> {
    if (data.length > 0) {
      this.#refuse(OPTION.LIST, 'this option has no data')
      return
    }
    for (const { name, description } of await this.#context.exports.list(this.#peer)) {
      const bytes = Buffer.from(name)
      const length = Buffer.alloc(4)
      length.writeUInt32BE(bytes.length)
      this.#reply(OPTION.LIST, OPTION_REPLY.SERVER, Buffer.concat([length, bytes, shortened(description)]))
    }
    this.#reply(OPTION.LIST, OPTION_REPLY.ACK)
  }

  async #startTls(data: Buffer): Promise<void> {
    const { tls } = this.#context
    if (!tls) {
      this.#reply(OPTION.STARTTLS, OPTION_REPLY.ERR_POLICY, 'this server has no TLS')
      return
    }
    if (data.length > 0 || this.#peer.tls) {
      this.#refuse(OPTION.STARTTLS, this.#peer.tls ? 'TLS is started already' : 'this option has no data')
      return
    }
    // What lies behind the option was not protected by TLS and must not be taken for what comes with it (CVE-2021-3716).
    if (this.#reader.stop().length > 0) throw new Refused('clear text behind STARTTLS')
    this.#reply(OPTION.STARTTLS, OPTION_REPLY.ACK)
    const { socket, identity } = await tls.secure(this.#socket)
    this.#socket = socket
    this.#context.secured(socket)
    this.#reader = new HandshakeReader(socket)
    this.#peer = { ...this.#peer, tls: true, identity }
    // "The client and server MUST act as if options negotiated before had not been."
    this.#isStructured = false
    this.#contextOf = null
  }

  async #metaContext(code: number, { name, queries }: ContextRequest): Promise<null> {
    const isSelection = code === OPTION.SET_META_CONTEXT
    if (isSelection) this.#contextOf = null
    if (!this.#isStructured) return this.#refuse(code, 'structured replies come first')
    const exported = await this.#open(name)
    if (!exported) return this.#unknown(code)
    await exported.release()
    const isWanted = isSelection
      ? queries.includes(BASE_ALLOCATION)
      : queries.length === 0 || queries.includes('base:') || queries.includes(BASE_ALLOCATION)
    if (isWanted) {
      const context = Buffer.alloc(4 + BASE_ALLOCATION.length)
      context.writeUInt32BE(isSelection ? CONTEXT_ID : 0)
      context.write(BASE_ALLOCATION, 4, 'latin1')
      this.#reply(code, OPTION_REPLY.META_CONTEXT, context)
      if (isSelection) this.#contextOf = name
    }
    this.#reply(code, OPTION_REPLY.ACK)
    return null
  }

  async #open(name: string): Promise<Export | undefined> {
    const exported = await this.#context.exports.open(name, this.#peer)
    if (!exported || !this.#socket.destroyed) return exported
    await exported.release()
    throw new Refused('the client did not wait')
  }

  #offersOf({ writer, prefetch, multiConnection }: Export): number {
    const writes = OFFERS.FLUSH | OFFERS.FUA | OFFERS.TRIM | OFFERS.WRITE_ZEROES | OFFERS.FAST_ZERO
    return (
      OFFERS.HAS_FLAGS |
      (writer ? writes : OFFERS.READ_ONLY) |
      (this.#isStructured ? OFFERS.DF : 0) |
      (!writer || multiConnection ? OFFERS.MULTI_CONN : 0) |
      (prefetch ? OFFERS.CACHE : 0)
    )
  }

  /** The same for all that may not be opened, whyever. */
  #unknown(code: number): null {
    this.#reply(code, OPTION_REPLY.ERR_UNKNOWN, 'there is no such export')
    return null
  }
  #refuse(code: number, problem: string): null {
    this.#reply(code, OPTION_REPLY.ERR_INVALID, problem)
    return null
  }

  #replyInfo(code: number, type: number, data: Buffer): void {
    const head = Buffer.alloc(2)
    head.writeUInt16BE(type)
    this.#reply(code, OPTION_REPLY.INFO, Buffer.concat([head, data]))
  }

  #reply(code: number, type: number, data: Buffer | string = ''): void {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    const reply = Buffer.alloc(20 + bytes.length)
    put64(reply, 0, OPTION_REPLY_MAGIC)
    reply.writeUInt32BE(code, 8)
    reply.writeUInt32BE(type, 12)
    reply.writeUInt32BE(bytes.length, 16)
    reply.set(bytes, 20)
    this.#socket.write(reply)
  }
}

function put64(buffer: Buffer, at: number, [high, low]: readonly [number, number]): void {
  buffer.writeUInt32BE(high, at)
  buffer.writeUInt32BE(low, at + 4)
}

/** At most as long as the protocol allows, cut between characters. */
function shortened(text: string): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length <= MAX_STRING_BYTES) return bytes
  return Buffer.from(
    bytes
      .subarray(0, MAX_STRING_BYTES - 3)
      .toString('utf8')
      .replace(/\uFFFD$/, ''),
  )
}
