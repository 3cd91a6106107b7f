import type { HydrateOptions } from '../disk-layers.ts'
import type { MachineChanges, MachineSpec } from '../hypervisor.ts'
import type { MachineHost } from '../machine-host.ts'
import type { MemoryState } from '../machine-memory.ts'
import type { MigrationTarget } from '../machine-migration.ts'
import type { FrameLink } from './frames.ts'
import { receiveStream, sendStream } from './streams.ts'
import { CallerFailed, type LongCall, type Opening, type Question } from './words.ts'

export interface Serving {
  readonly hypervisor: MachineHost
  /** The caller's connection for memory, once it has been asked for it. */
  readonly stream: (key: string) => Promise<FrameLink>
}

/** Does what was asked for, with what the caller gives meanwhile. The caller's word, or its going, cuts it short. */
export async function serveLong(
  link: FrameLink,
  { say, values, key, hasMoment = false }: Opening & { readonly say: LongCall },
  { hypervisor, stream }: Serving,
): Promise<unknown> {
  const caller = new Caller(link)
  const { signal } = caller
  const [first, second] = values
  const id = String(first)
  const memory = (state: unknown): { readonly memory: MemoryState } => ({
    memory: {
      ...(state as Omit<MemoryState, 'open'>),
      open: () => caller.memory(() => stream(key)),
    },
  })
  switch (say) {
    case 'launch': {
      const { memory: state, ...spec } = first as MachineSpec
      return hypervisor.launch({ ...spec, ...(state ? memory(state) : {}) }, signal)
    }
    case 'start': {
      const { memory: state, ...changes } = second as MachineChanges
      return hypervisor.start(id, { ...changes, ...(state ? memory(state) : {}) }, signal)
    }
    case 'seal': {
      const { quiesceMs, mustBeQuiet } = second as { readonly quiesceMs: unknown; readonly mustBeQuiet: unknown }
      const still = hasMoment ? { whileStill: () => caller.ask('still') } : {}
      return hypervisor.seal(id, Number(quiesceMs), { ...still, mustBeQuiet: mustBeQuiet === true })
    }
    case 'hydrate': {
      const onProgress: HydrateOptions['onProgress'] = (progress) => caller.tell({ progress })
      return hypervisor.hydrate(id, String(second), { signal, onProgress })
    }
    case 'saveMemory':
      return hypervisor.saveMemory(id, (body) => caller.take(() => stream(key), body), {
        signal,
        ...(hasMoment ? { whileStill: () => caller.ask('still') } : {}),
      })
    case 'migrateTo':
      return hypervisor.migrateTo(id, second as MigrationTarget, { signal })
    default:
      throw new Error(`nobody serves ${say satisfies never}`)
  }
}

/** Who waits for a call: asked for its part of it, and heard when it wants no more. */
class Caller {
  readonly #link: FrameLink
  readonly #cut = new AbortController()
  readonly #questions = new Map<Question, PromiseWithResolvers<void>>()

  constructor(link: FrameLink) {
    this.#link = link
    void this.#hear().catch(() => this.#gone())
  }

  get signal(): AbortSignal {
    return this.#cut.signal
  }

  /** Now and then; nobody waits for it. */
  tell(word: object): void {
    if (this.#link.socket.writableLength === 0) void this.#link.send(word).catch(() => {})
  }

  /** @throws CallerFailed */
  async ask(question: Question): Promise<void> {
    const answer = this.#expect(question)
    await this.#link.send({ ask: question })
    await answer
  }

  async *memory(stream: () => Promise<FrameLink>): AsyncGenerator<Uint8Array, void, undefined> {
    const answer = this.#expect('memory')
    const coming = heeded(stream())
    await this.#link.send({ ask: 'memory' })
    const failed = answer.then(() => new Promise<never>(() => {})) // what was sent in full is seen by its last frame
    const link = await Promise.race([coming, failed])
    const body = receiveStream(link)
    try {
      yield* body
    } catch (error) {
      await answer // why it broke off
      throw error
    }
  }

  /** Settles when the caller has taken all of it. @throws CallerFailed; what `body` throws */
  async take(stream: () => Promise<FrameLink>, body: AsyncIterable<Uint8Array>): Promise<void> {
    const answer = this.#expect('sink')
    const coming = heeded(stream())
    await this.#link.send({ ask: 'sink' })
    let isBroken = false
    const watched = async function* () {
      try {
        yield* body
      } catch (error) {
        isBroken = true
        throw error
      }
    }
    const sent = heeded(coming.then((link) => sendStream(link, watched())))
    try {
      await Promise.race([sent, answer.then(() => sent)])
      await answer
    } catch (error) {
      coming.then((link) => link.destroy()).catch(() => {})
      if (!isBroken) await answer // why nobody took it
      throw error
    }
  }

  #expect(question: Question): Promise<void> {
    const expected = Promise.withResolvers<void>()
    this.#questions.set(question, expected)
    if (this.#cut.signal.aborted) expected.reject(new CallerFailed('The caller has gone.'))
    return heeded(expected.promise)
  }

  async #hear(): Promise<void> {
    for (let frame = await this.#link.next(); frame; frame = await this.#link.next()) {
      const { head } = frame
      if (head.isEnough === true) this.#cut.abort()
      const asked = this.#questions.get(head.answer as Question)
      if (head.hasFailed === true) asked?.reject(new CallerFailed('The caller could not do its part.'))
      else asked?.resolve()
    }
    this.#gone()
  }

  #gone(): void {
    this.#cut.abort()
    for (const asked of this.#questions.values()) asked.reject(new CallerFailed('The caller has gone.'))
  }
}

/** Who waits for it may have ended before it fails. */
function heeded<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {})
  return work
}
