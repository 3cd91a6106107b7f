import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { type NbdCounters, newCounters } from './counters.ts'
import type { ExportSource } from './export.ts'
import { Aborted, type Chosen, type HandshakeContext, handshake, Refused } from './handshake.ts'
import { Disconnected } from './handshake-reader.ts'
import { defaultNbdLimits, type NbdLimits, STALL_BYTES_PER_SECOND, STALL_BYTES_PER_SECOND_WHEN_WAITED_FOR } from './limits.ts'
import type { NbdLog } from './log.ts'
import { MemoryBudget } from './memory-budget.ts'
import { Session, type SessionContext } from './session.ts'
import { SlabPool } from './slab-pool.ts'
import { createTlsUpgrade, type NbdTls, type TlsUpgrade } from './tls.ts'

const SWEEP_MS = 1_000
const KEPT_SLAB_BYTES = 32 * MiB
const TCP_KEEP_ALIVE_MS = 60_000
const BACKLOG = 1024

export interface NbdServerOptions {
  readonly exports: ExportSource
  /** Absent: STARTTLS is refused. */
  readonly tls?: NbdTls
  /** What differs from `defaultNbdLimits`. */
  readonly limits?: Partial<NbdLimits>
  readonly log: NbdLog
}

/** Where a server listens. A socket file is the caller's: its folder decides who may connect. */
export type NbdAddress = { readonly host: string; readonly port: number } | { readonly path: string }

export interface NbdServer {
  /** May be called for several addresses. @returns the address; port 0 became the port. @throws ServiceError `conflict` */
  listen(address: NbdAddress): Promise<NbdAddress>
  readonly counters: Readonly<NbdCounters>
  /** Bytes of requests and replies now held beyond each connection's own share. */
  readonly sharedBytesUsed: number
  /**
   * Takes no more connections; requests under way finish and their replies leave. What is not done after `graceMs` is cut off.
   * Settles when every export is released.
   */
  close(graceMs?: number): Promise<void>
}

/** Serves the disks of an export source to NBD clients. Not yet listening. */
export function createNbdServer(options: NbdServerOptions): NbdServer {
  return new Nbd(options)
}

/** A connection that has not chosen an export yet. */
interface Newcomer {
  /** The one in TLS, once there is one. */
  socket: Socket
}

class Nbd implements NbdServer {
  readonly #exports: ExportSource
  readonly #tls: TlsUpgrade | null
  readonly #limits: NbdLimits
  readonly #log: NbdLog
  readonly #context: SessionContext
  readonly #servers = new Set<Server>()
  /** In order of coming: the oldest first. */
  readonly #handshaking = new Set<Newcomer>()
  readonly #sessions = new Set<Session>()
  readonly #perExport = new Map<string, number>()
  /** Exports that are open. */
  readonly #open = new Set<Promise<void>>()
  readonly counters = newCounters()
  #sweeper: NodeJS.Timeout | null = null
  #isClosing = false

  constructor({ exports, tls, limits, log }: NbdServerOptions) {
    this.#exports = exports
    this.#tls = tls ? createTlsUpgrade(tls) : null
    this.#limits = { ...defaultNbdLimits, ...limits }
    this.#log = log
    const shared = new MemoryBudget(this.#limits.sharedBytes)
    this.#context = { limits: this.#limits, shared, slabs: new SlabPool(KEPT_SLAB_BYTES), counters: this.counters, log }
  }

  get sharedBytesUsed(): number {
    return this.#context.shared.usedBytes
  }

  async listen(address: NbdAddress): Promise<NbdAddress> {
    const server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: TCP_KEEP_ALIVE_MS })
    server.on('connection', (socket) => void this.#connected(socket))
    await new Promise<void>((done, fail) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        const where = 'path' in address ? address.path : `${address.host}:${address.port}`
        const advice = error.code === 'EADDRINUSE' ? 'something else listens there' : `the system says ${error.code}`
        fail(
          new ServiceError('conflict', `NBD cannot listen on ${where}: ${advice}; choose another address.`, {}, { cause: error }),
        )
      })
      server.listen({ ...address, backlog: BACKLOG }, done)
    })
    server.on('error', (error) => this.#log.error({ err: error }, 'the NBD server cannot accept a connection'))
    this.#servers.add(server)
    this.#sweeper ??= setInterval(() => this.#sweep(Date.now()), SWEEP_MS).unref()
    if ('path' in address) return address
    return { host: address.host, port: (server.address() as AddressInfo).port }
  }

  async close(graceMs = 10_000): Promise<void> {
    this.#isClosing = true
    const closed = [...this.#servers].map((server) => new Promise<void>((done) => server.close(() => done())))
    for (const newcomer of this.#handshaking) newcomer.socket.destroy()
    for (const session of this.#sessions) session.shutDown()
    const cutOff = setTimeout(() => {
      for (const session of this.#sessions) session.drop('the server closed and the client did not take its replies')
    }, graceMs)
    await Promise.all(closed)
    while (this.#open.size > 0) await Promise.all(this.#open)
    clearTimeout(cutOff)
    if (this.#sweeper) clearInterval(this.#sweeper)
  }

  /** One connection from its first byte to its last. */
  async #connected(socket: Socket): Promise<void> {
    socket.on('error', () => socket.destroy()) // a reset by the client: `close` follows, and tells those who wait
    if (this.#isClosing) {
      socket.destroy()
      return
    }
    this.counters.connectionsTotal += 1
    const newcomer: Newcomer = { socket }
    const deadline = this.#beginHandshake(newcomer)
    const address = socket.remoteAddress ? `${socket.remoteAddress}:${socket.remotePort}` : 'unix'
    const context: HandshakeContext = {
      exports: this.#exports,
      limits: this.#limits,
      tls: this.#tls,
      address,
      isClosing: () => this.#isClosing,
      admit: (name) => this.#admit(name),
      secured: (secure) => {
        newcomer.socket = secure
      },
    }
    try {
      const chosen = await handshake(socket, context)
      this.#endHandshake(newcomer, deadline)
      this.#serve(chosen)
    } catch (error) {
      this.#endHandshake(newcomer, deadline)
      this.#refused(newcomer.socket, address, error)
    }
  }

  #beginHandshake(newcomer: Newcomer): NodeJS.Timeout {
    const drop = (dropped: Newcomer) => {
      this.counters.connectionsDropped += 1
      this.#handshaking.delete(dropped)
      dropped.socket.destroy()
    }
    const [oldest] = this.#handshaking
    if (oldest && this.#handshaking.size >= this.#limits.maxHandshaking) drop(oldest)
    this.#handshaking.add(newcomer)
    this.counters.handshaking = this.#handshaking.size
    return setTimeout(drop, this.#limits.handshakeMs, newcomer).unref()
  }

  #endHandshake(newcomer: Newcomer, deadline: NodeJS.Timeout): void {
    clearTimeout(deadline)
    this.#handshaking.delete(newcomer)
    this.counters.handshaking = this.#handshaking.size
  }

  #refused(socket: Socket, address: string, error: unknown): void {
    if (error instanceof Aborted) {
      socket.end(() => socket.destroy())
      return
    }
    this.counters.handshakesFailed += 1
    if (error instanceof Refused) this.#log.info({ address, reason: error.message }, 'NBD connection refused')
    else if (!(error instanceof Disconnected)) this.#log.error({ address, err: error }, 'an NBD handshake failed')
    socket.destroy()
  }

  #admit(name: string): boolean {
    const { maxConnections, maxConnectionsPerExport } = this.#limits
    const ofExport = this.#perExport.get(name) ?? 0
    if (this.counters.connections >= maxConnections || ofExport >= maxConnectionsPerExport) return false
    this.#perExport.set(name, ofExport + 1)
    this.counters.connections += 1
    return true
  }

  #serve({ socket, name, agreement, received }: Chosen): void {
    const open = new Promise<void>((done) => {
      const session = new Session(socket, agreement, this.#context, () => {
        this.#sessions.delete(session)
        this.#leave(name)
        void this.#release(agreement.exported).then(done)
      })
      this.#sessions.add(session)
      session.start(received)
      if (this.#isClosing) session.shutDown()
    })
    this.#open.add(open)
    void open.then(() => this.#open.delete(open))
  }

  #leave(name: string): void {
    this.counters.connections -= 1
    const ofExport = (this.#perExport.get(name) ?? 1) - 1
    if (ofExport === 0) this.#perExport.delete(name)
    else this.#perExport.set(name, ofExport)
  }

  async #release(exported: Chosen['agreement']['exported']): Promise<void> {
    try {
      await exported.release()
    } catch (error) {
      this.#log.error({ err: error }, 'an NBD export could not be released')
    }
  }

  #sweep(nowMs: number): void {
    const { idleMs, stallMs, stallWhenWaitedForMs } = this.#limits
    const { isWaitedFor } = this.#context.shared
    for (const session of this.#sessions) {
      const { owed, idleSinceMs } = session
      const isInTheWay = isWaitedFor && session.usesShared
      const rate = isInTheWay ? STALL_BYTES_PER_SECOND_WHEN_WAITED_FOR : STALL_BYTES_PER_SECOND
      const patienceMs = isInTheWay ? stallWhenWaitedForMs : stallMs
      if (owed && nowMs - owed.sinceMs > patienceMs + (owed.bytes / rate) * 1000) session.drop('too slow')
      else if (idleMs !== null && idleSinceMs !== null && nowMs - idleSinceMs > idleMs) session.drop('idle')
    }
  }
}
