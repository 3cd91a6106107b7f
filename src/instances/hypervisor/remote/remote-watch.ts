import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import { HostAway } from '../host-away.ts'
import type { FoundMachine } from '../hypervisor.ts'
import type { FrameLink } from './frames.ts'
import { openLink } from './remote-call.ts'
import { type About, PROTOCOL, type Told } from './words.ts'

const AGAIN_MS = 500
/** One that takes a connection and says nothing is away, too. */
const ANSWERS_WITHIN_MS = 10_000

export interface Watching {
  readonly socketPath: string
  readonly answersWithinMs?: number | undefined
  readonly closing: AbortSignal
  readonly tell: (machine: FoundMachine) => void
  /** After the agent was away, during which nobody was told of anything. */
  readonly onBack: () => void
  readonly onAway: (error: unknown) => void
}

/** The one connection that lasts: by it the agent tells of its machines, and it is known whether the agent is there. */
export class RemoteWatch {
  readonly #watching: Watching
  #about: About | null = null
  /** Null: it is away. */
  #link: FrameLink | null = null
  #heard = 0
  readonly #waiting = new Set<() => void>()
  #problem: unknown = null

  private constructor(watching: Watching) {
    this.#watching = watching
  }

  /** Settles when the agent has answered, or has not: then it is asked again, for ever. */
  static async start(watching: Watching): Promise<RemoteWatch> {
    const watch = new RemoteWatch(watching)
    const first = await watch.#connect()
    void watch.#go(first)
    return watch
  }

  get isThere(): boolean {
    return this.#link !== null
  }

  /** @throws HostAway where the agent is away */
  get about(): About {
    if (this.#about && this.#link) return this.#about
    throw new HostAway('The host is away: its agent does not answer.', { cause: this.#problem })
  }

  /** The last that was known, also where the agent is away by now. */
  get lastKnown(): About | null {
    return this.#about
  }

  /** Settles when those who watch have been told of so many changes, or nobody can tell them any more. */
  async heard(told: number): Promise<void> {
    while (this.#link && this.#heard < told) {
      await new Promise<void>((looked) => this.#waiting.add(looked))
    }
  }

  async #go(first: FrameLink | null): Promise<void> {
    const { closing, onAway, onBack } = this.#watching
    for (let link = first, wasAway = first === null; !closing.aborted; link = await this.#connect()) {
      if (link) {
        if (wasAway) onBack()
        await this.#listen(link)
        if (!closing.aborted) onAway(this.#problem ?? new ServiceError('unavailable', 'The agent of the host has hung up.'))
      }
      wasAway = true
      await pause(AGAIN_MS, undefined, { signal: closing }).catch(() => {})
    }
  }

  async #connect(): Promise<FrameLink | null> {
    const { answersWithinMs = ANSWERS_WITHIN_MS, closing, socketPath } = this.#watching
    if (closing.aborted) return null
    let link: FrameLink | null = null
    try {
      link = await openLink(socketPath, { say: 'watch' })
      const silent = link
      const late = setTimeout(() => silent.destroy(), answersWithinMs)
      const frame = await link.next().finally(() => clearTimeout(late))
      if (!frame) throw new HostAway('The agent of the host does not say what it is.')
      const about = frame.head as unknown as About
      if (about.protocol !== PROTOCOL) {
        const message = `The agent of the host speaks version ${about.protocol} and the service ${PROTOCOL}: install one version of both.`
        throw new ServiceError('unavailable', message)
      }
      const known = link
      closing.addEventListener('abort', () => known.destroy(), { once: true })
      if (closing.aborted) known.destroy()
      this.#about = about
      this.#heard = about.told
      this.#problem = null
      this.#link = link
      return link
    } catch (error) {
      link?.destroy()
      this.#problem = error
      return null
    }
  }

  async #listen(link: FrameLink): Promise<void> {
    try {
      for (let frame = await link.next(); frame; frame = await link.next()) {
        const { machine, told } = frame.head as unknown as Told
        this.#watching.tell(machine)
        this.#heard = told
        this.#look()
      }
    } catch (error) {
      this.#problem = error
    }
    this.#link = null
    this.#look()
  }

  #look(): void {
    for (const looked of this.#waiting) looked()
    this.#waiting.clear()
  }
}
