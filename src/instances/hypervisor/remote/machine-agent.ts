import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import type { FoundMachine } from '../hypervisor.ts'
import type { MachineHost } from '../machine-host.ts'
import { FrameLink } from './frames.ts'
import { serveDisk } from './served-disk.ts'
import { serveLong } from './served-long.ts'
import { type About, failureOf, type LongCall, longCalls, type Opening, PROTOCOL, plainCalls } from './words.ts'

export interface AgentOptions {
  readonly hypervisor: MachineHost
  /** Whoever may connect there commands the host's machines: the folder around it keeps others out. */
  readonly socketPath: string
  readonly onProblem: (error: unknown) => void
  /** Those who watch hear something at least this often. */
  readonly saysEveryMs?: number
}

/** Of a service: its consoles, layers that are read, and calls. */
const MAX_CONNECTIONS = 4096
const SAID_WITHIN_MS = 60_000
/** Much more often than those who watch take it for away (remote-hypervisor.ts). */
const SAYS_EVERY_MS = 2000
/** Told to a watcher that does not listen: then of each machine only how it stands. */
const MAX_UNHEARD = 1024

/** Serves the hypervisor of this host to services. It closes what it serves, whose machines run on. */
export class MachineAgent {
  readonly #hypervisor: MachineHost
  readonly #onProblem: (error: unknown) => void
  readonly #saysEveryMs: number
  readonly #server: Server
  readonly #links = new Set<FrameLink>()
  readonly #watchers = new Set<(machine: FoundMachine, told: number) => void>()
  /** Calls that wait for their stream, by key. */
  readonly #streams = new Map<string, (link: FrameLink) => void>()
  /** By machine, calls that were cut short by the end of their connection and have not ended yet. */
  readonly #left = new Map<string, Set<Promise<unknown>>>()
  readonly #unwatch: () => void
  #told = 0

  private constructor({ hypervisor, onProblem, saysEveryMs = SAYS_EVERY_MS }: AgentOptions) {
    this.#hypervisor = hypervisor
    this.#saysEveryMs = saysEveryMs
    this.#onProblem = onProblem
    this.#server = createServer({ pauseOnConnect: true }, (socket) => void this.#hear(socket))
    this.#server.maxConnections = MAX_CONNECTIONS
    this.#unwatch = hypervisor.watch((machine) => {
      this.#told += 1
      for (const tell of this.#watchers) tell(machine, this.#told)
    })
  }

  /** @throws errors of the system, where it cannot listen there */
  static async listen(options: AgentOptions): Promise<MachineAgent> {
    const agent = new MachineAgent(options)
    await rm(options.socketPath, { force: true })
    const umask = process.umask(0o177)
    agent.#server.listen(options.socketPath) // binds at once, and fails by an event
    process.umask(umask)
    await once(agent.#server, 'listening')
    return agent
  }

  async close(): Promise<void> {
    this.#server.close()
    this.#unwatch()
    for (const link of this.#links) link.destroy()
    await this.#hypervisor.close()
    await Promise.allSettled([...this.#left.values()].flatMap((calls) => [...calls]))
  }

  async #hear(socket: Socket): Promise<void> {
    const link = new FrameLink(socket)
    this.#links.add(link)
    socket.on('close', () => this.#links.delete(link))
    const late = setTimeout(() => link.destroy(), SAID_WITHIN_MS)
    try {
      const opening = (await link.next())?.head as Opening | undefined
      clearTimeout(late)
      if (opening) await this.#serve(link, opening)
      else link.destroy()
    } catch (error) {
      await this.#answer(link, { failed: failureOf(error, this.#onProblem) })
    } finally {
      clearTimeout(late)
    }
  }

  async #serve(link: FrameLink, opening: Opening): Promise<void> {
    if (opening.say === 'watch') return this.#watch(link)
    if (opening.say === 'stream') return this.#takeStream(link, opening.key)
    const { say, values } = opening
    if (!Array.isArray(values)) throw unknown()
    await Promise.all(this.#left.get(machineOf(opening)) ?? [])
    if (say === 'serial') return this.#serial(link, values)
    if (say === 'openLayer') return serveDisk(link, await this.#hypervisor.openLayer(...(values as [string, string, number])))
    if (isLong(say)) return this.#long(link, opening as Opening & { readonly say: LongCall })
    if (!(plainCalls as readonly string[]).includes(say)) throw unknown()
    const call = this.#hypervisor[say] as (...values: readonly unknown[]) => Promise<unknown>
    const done = await call.apply(this.#hypervisor, values)
    await this.#answer(link, { done })
  }

  async #long(link: FrameLink, opening: Opening & { readonly say: LongCall }): Promise<void> {
    const id = machineOf(opening)
    const call = serveLong(link, opening, { hypervisor: this.#hypervisor, stream: (key) => this.#stream(key, link) })
    const ended = call.catch(() => {})
    const left = this.#left.get(id) ?? new Set()
    const leave = () => {
      left.add(ended)
      this.#left.set(id, left)
    }
    link.socket.once('close', leave)
    try {
      await this.#answer(link, { done: await call })
    } finally {
      link.socket.off('close', leave)
      left.delete(ended)
      if (left.size === 0 && this.#left.get(id) === left) this.#left.delete(id)
    }
  }

  /** What was done was told before it is answered. */
  async #answer(link: FrameLink, answer: object): Promise<void> {
    await link.send({ ...answer, told: this.#told }).catch(() => {})
    link.end()
  }

  /** Both ways until either ends. */
  async #serial(link: FrameLink, values: readonly unknown[]): Promise<void> {
    const serial = await this.#hypervisor.serial(String(values[0]))
    const { socket } = link
    serial.on('error', () => serial.destroy())
    serial.once('close', () => socket.destroySoon())
    socket.once('close', () => serial.destroy())
    if (socket.destroyed) serial.destroy()
    await link.send({ done: null, told: this.#told }).catch(() => {})
    link.release().pipe(serial).pipe(socket)
  }

  /** In the order in which things happened. */
  async #watch(link: FrameLink): Promise<void> {
    let unheard: { machine: FoundMachine; told: number }[] = []
    let wake = () => {}
    let isWordDue = false
    const alive = setInterval(() => {
      isWordDue = true
      wake()
    }, this.#saysEveryMs)
    const tell = (machine: FoundMachine, told: number) => {
      if (unheard.length >= MAX_UNHEARD) unheard = unheard.filter((each) => each.machine.id !== machine.id)
      unheard.push({ machine, told })
      wake()
    }
    this.#watchers.add(tell)
    link.socket.once('close', () => {
      this.#watchers.delete(tell)
      wake()
    })
    void link.next().then(
      () => link.destroy(), // it has nothing to say: that was its end
      () => {},
    )
    await link.send(this.#about()).catch(() => {})
    while (!link.isOver) {
      const next = unheard.shift() ?? (isWordDue ? {} : undefined)
      isWordDue = false
      if (next) await link.send(next).catch(() => link.destroy())
      else {
        await new Promise<void>((woken) => {
          wake = woken
          if (link.isOver) woken()
        })
      }
    }
    clearInterval(alive)
  }

  #about(): About {
    const common = { protocol: PROTOCOL, type: this.#hypervisor.type, told: this.#told }
    try {
      return { ...common, abilities: this.#hypervisor.abilities, problem: null }
    } catch (error) {
      if (isServiceError(error, 'unavailable')) return { ...common, abilities: null, problem: error.message }
      throw error
    }
  }

  #takeStream(link: FrameLink, key: string): void {
    const take = this.#streams.get(key)
    if (!take) throw new ServiceError('not-found', 'No call waits for that stream.')
    this.#streams.delete(key)
    take(link)
  }

  /** The next connection with that key. @throws ServiceError `unavailable` where the call's own connection ends before */
  #stream(key: string, call: FrameLink): Promise<FrameLink> {
    const { promise, resolve, reject } = Promise.withResolvers<FrameLink>()
    const over = () => {
      this.#streams.delete(key)
      reject(new ServiceError('unavailable', 'The caller has hung up.'))
    }
    call.socket.once('close', over)
    this.#streams.set(key, resolve)
    if (call.isOver) over()
    return promise.finally(() => call.socket.off('close', over))
  }
}

const isLong = (say: string): say is LongCall => (longCalls as readonly string[]).includes(say)

/** Of `launch`, whose first value is the machine; of others its id. */
const machineOf = ({ say, values }: Extract<Opening, { readonly values: unknown }>): string => {
  const [first] = values
  return say === 'launch' ? String((first as { readonly id?: unknown } | null)?.id) : String(first)
}

const unknown = (): ServiceError =>
  new ServiceError('unsupported', 'The agent of the host does not know that call; its version must be that of the service.')
