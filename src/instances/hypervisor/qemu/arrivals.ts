import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, open, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { ServiceError } from '../../../base/errors.ts'
import type { MachineDisk } from '../hypervisor.ts'
import type { MigrationTarget } from '../machine-migration.ts'
import { Arrival } from './arrival.ts'
import { isObject, objectOf } from './json-lines.ts'
import type { Machine } from './machine.ts'
import { line, MAX_WORD_BYTES, type Offer, reply, replyError, type Word } from './migration-link.ts'

/** Where other hypervisors send machines to, and what is said there. */

const SOCKET = 'migration.sock'
const TOKEN_BYTES = 32
const SAID_WITHIN_MS = 60_000
/** Marks that a machine came by that migration and is gone again, until the source has been told. */
const MARK = 'came-'
const TOKEN = /^[\w-]{43}$/
const WORDS: ReadonlySet<unknown> = new Set(['prepare', 'layer', 'wait', 'pipe', 'filled', 'commit', 'done'])

export interface ArrivalsHost {
  readonly root: string
  /** As it is to be here, and as its source describes it. */
  readonly make: (id: string, offer: Offer) => Promise<Machine>
  readonly forget: (id: string) => void
  /** The machine that came by that migration, where its source may not know yet. */
  readonly arrivedBy: (token: string) => Machine | undefined
  readonly onProblem: (error: unknown) => void
}

export class Arrivals {
  readonly #host: ArrivalsHost
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** By token. */
  readonly #arrivals = new Map<string, { readonly id: string; readonly arrival: Arrival }>()

  private constructor(host: ArrivalsHost) {
    this.#host = host
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => void this.#hear(socket))
  }

  static async listen(host: ArrivalsHost): Promise<Arrivals> {
    const arrivals = new Arrivals(host)
    const path = arrivals.#path
    await rm(path, { force: true })
    arrivals.#server.listen(path)
    await once(arrivals.#server, 'listening')
    await chmod(path, 0o600)
    return arrivals
  }

  expect(id: string): MigrationTarget {
    const token = randomBytes(TOKEN_BYTES).toString('base64url')
    const arrival = new Arrival(token, {
      make: (offer) => this.#host.make(id, offer),
      onGone: () => {
        this.#arrivals.delete(token)
        this.#host.forget(id)
      },
      onProblem: this.#host.onProblem,
    })
    this.#arrivals.set(token, { id, arrival })
    return { socketPath: this.#path, token }
  }

  isExpected(id: string): boolean {
    return [...this.#arrivals.values()].some((each) => each.id === id)
  }

  /** Those of this id that are not here by now come no more. */
  async withdraw(id: string): Promise<void> {
    for (const each of this.#arrivals.values()) if (each.id === id) await each.arrival.withdraw()
  }

  /** Those that are not here by now come no more. */
  async close(): Promise<void> {
    this.#server.close()
    for (const { arrival } of [...this.#arrivals.values()]) await arrival.withdraw().catch(this.#host.onProblem)
    for (const socket of this.#sockets) socket.destroy()
  }

  /** Before a machine is removed whose source may still ask for it. */
  async mark(token: string): Promise<void> {
    const file = await open(this.#markOf(token), 'w', 0o600)
    await file.sync()
    await file.close()
    const folder = await open(this.#host.root, 'r')
    await folder.sync()
    await folder.close()
  }

  async #hear(socket: Socket): Promise<void> {
    this.#sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#sockets.delete(socket))
    try {
      const said = objectOf(await line(socket, MAX_WORD_BYTES, AbortSignal.timeout(SAID_WITHIN_MS)))
      const { token, ...word } = said ?? {}
      if (typeof token !== 'string' || !TOKEN.test(token) || !WORDS.has(word.say)) throw unknown()
      await this.#take(token, word as Word, socket)
    } catch (error) {
      replyError(socket, error)
    }
  }

  async #take(token: string, word: Word, socket: Socket): Promise<void> {
    const arrival = this.#arrivals.get(token)?.arrival
    if (word.say === 'done') {
      await (arrival ? arrival.hear(word, socket) : this.#host.arrivedBy(token)?.sourceKnows())
      this.#arrivals.delete(token)
      await rm(this.#markOf(token), { force: true })
      if (!arrival) reply(socket, {})
    } else if (arrival) {
      await arrival.hear(word, socket)
    } else if (word.say === 'commit') {
      reply(socket, { isHere: this.#host.arrivedBy(token) !== undefined || (await this.#isMarked(token)) })
    } else throw unknown()
  }

  async #isMarked(token: string): Promise<boolean> {
    const file = await open(this.#markOf(token)).catch((error) => {
      if (error.code === 'ENOENT') return null
      throw error
    })
    await file?.close()
    return file !== null
  }

  get #path(): string {
    return join(this.#host.root, SOCKET)
  }
  #markOf(token: string): string {
    return join(this.#host.root, `${MARK}${token}`)
  }
}

const unknown = () => new ServiceError('not-found', 'No machine is expected by that word; ask the target for another.')

/** What the source says of its machine, where it can be true. @throws ServiceError `invalid-request` */
export function checkedOffer(offer: unknown, disks: readonly MachineDisk[]): Offer {
  const isLayers = ([name, value]: readonly [string, unknown]): boolean =>
    Array.isArray(value) &&
    (value.length === 0) === (disks.find((disk) => disk.name === name)?.store !== undefined) &&
    value.length <= MAX_LAYERS &&
    value.every((layer, index) => Number.isSafeInteger(layer) && layer >= 0 && (index === 0 || layer > value[index - 1]))
  const holds =
    isObject(offer) &&
    typeof offer.shape === 'string' &&
    typeof offer.wasPaused === 'boolean' &&
    (offer.seedDisc === null || typeof offer.seedDisc === 'string') &&
    isObject(offer.layers) &&
    Object.keys(offer.layers).sort().join() ===
      disks
        .map(({ name }) => name)
        .sort()
        .join() &&
    Object.entries(offer.layers).every(isLayers)
  if (!holds) throw new ServiceError('invalid-request', 'What comes is not the machine that is expected: its disks differ.')
  return offer as unknown as Offer
}
const MAX_LAYERS = 64
