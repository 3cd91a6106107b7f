import { setTimeout as pause } from 'node:timers/promises'
import { HostAway } from '../host-away.ts'
import type { FoundMachine } from '../hypervisor.ts'
import type { FrameLink } from './frames.ts'
import { openLink } from './remote-call.ts'
import { Silence } from './silence.ts'
import { type About, PROTOCOL, type Told } from './words.ts'

const AGAIN_MS = 500

export interface Watching {
  readonly socketPath: string
  readonly closing: AbortSignal
  /** An agent that says nothing for so long is away, whether it holds its connection or not. */
  readonly silenceMs: number
  readonly tell: (machine: FoundMachine) => void
  /** After the agent was away, during which nobody was told of anything. */
  readonly onBack: () => void
  /** Told each reason once, until the agent is back. */
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
  #problem: HostAway | null = null
  /** What was said of its absence. */
  readonly #said = new Set<string>()

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

  /** @throws HostAway where the agent is away, or of another version */
  get about(): About {
    if (this.#about && this.#link) return this.#about
    const why = this.#problem ? ` ${this.#problem.message}` : ''
    throw new HostAway(`The host is away.${why}`, { cause: this.#problem })
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
    const { closing, onBack } = this.#watching
    for (let link = first, wasAway = first === null; !closing.aborted; link = await this.#connect()) {
      if (link) {
        if (wasAway) onBack()
        await this.#listen(link)
      }
      if (!closing.aborted) this.#sayAway()
      wasAway = true
      await pause(AGAIN_MS, undefined, { signal: closing }).catch(() => {})
    }
  }

  #sayAway(): void {
    if (!this.#problem || this.#said.has(this.#problem.message)) return
    this.#said.add(this.#problem.message)
    this.#watching.onAway(this.#problem)
  }

  async #connect(): Promise<FrameLink | null> {
    const { closing, socketPath } = this.#watching
    if (closing.aborted) return null
    let link: FrameLink | null = null
    try {
      link = await openLink(socketPath, { say: 'watch' })
      const about = (await this.#nextOf(link))?.head as unknown as About | undefined
      if (!about) throw new HostAway('Its agent hung up before it said what it is; see its log.')
      if (about.protocol !== PROTOCOL) throw otherProtocol(about.protocol)
      this.#about = about
      this.#heard = about.told
      this.#problem = null
      this.#said.clear()
      this.#link = link
      return link
    } catch (error) {
      link?.destroy()
      this.#problem = asAway(error)
      return null
    }
  }

  async #listen(link: FrameLink): Promise<void> {
    this.#problem = new HostAway('Its agent has hung up.')
    try {
      for (let frame = await this.#nextOf(link); frame; frame = await this.#nextOf(link)) {
        if (!('machine' in frame.head)) continue
        const { machine, told } = frame.head as unknown as Told
        this.#watching.tell(machine)
        this.#heard = told
        this.#look()
      }
    } catch (error) {
      this.#problem = asAway(error)
    }
    link.destroy()
    this.#link = null
    this.#look()
  }

  /** @throws HostAway where it says nothing for too long */
  async #nextOf(link: FrameLink): Promise<Awaited<ReturnType<FrameLink['next']>>> {
    const { closing, silenceMs } = this.#watching
    const silence = new Silence(silenceMs, () => link.destroy())
    const closed = () => link.destroy()
    closing.addEventListener('abort', closed, { once: true })
    if (closing.aborted) closed()
    try {
      const frame = await link.next()
      if (!frame && silence.isOver)
        throw new HostAway('Its agent says nothing, though it holds its connection; see whether it is stopped.')
      return frame
    } finally {
      silence.end()
      closing.removeEventListener('abort', closed)
    }
  }

  #look(): void {
    for (const looked of this.#waiting) looked()
    this.#waiting.clear()
  }
}

const otherProtocol = (theirs: unknown): HostAway =>
  new HostAway(`Its agent speaks version ${theirs} and the service ${PROTOCOL}: install one version of both.`)

const asAway = (error: unknown): HostAway =>
  error instanceof HostAway ? error : new HostAway('Its agent says what nobody understands.', { cause: error })
