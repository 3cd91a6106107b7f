import { ServiceError } from './errors.ts'

/** What is done to one thing at a time, in the order in which it was asked for. */
interface Line {
  /** Settles when all that is in line has ended. */
  tail: Promise<void>
  /** Ends what runs and drops what waits. */
  abort: AbortController
  length: number
}

/**
 * Work on instances or volumes that goes on after its request was answered. The works of one of them run one after the other; those that
 * are `heavy` also wait until fewer than `concurrency` of them run on this machine. What a stop cuts short is taken up again at
 * the next start, by whoever has recorded it.
 */
export class TaskLines {
  readonly #concurrency: number
  readonly #onProblem: (error: unknown) => void
  readonly #lines = new Map<string, Line>()
  readonly #waiting: (() => void)[] = []
  #heavy = 0
  #stopping = false

  /** @param onProblem told of a work that threw: it should have recorded its failure itself */
  constructor({ concurrency, onProblem }: { readonly concurrency: number; readonly onProblem: (error: unknown) => void }) {
    this.#concurrency = concurrency
    this.#onProblem = onProblem
  }

  /** @throws ServiceError `unavailable` while stopping */
  start(id: string, work: (signal: AbortSignal) => Promise<void>, how: { readonly heavy?: boolean } = {}): void {
    if (this.#stopping) throw new ServiceError('unavailable', 'the service is stopping: try again in a minute')
    const line = this.#lines.get(id) ?? { tail: Promise.resolve(), abort: new AbortController(), length: 0 }
    this.#lines.set(id, line)
    const { signal } = line.abort
    line.length += 1
    line.tail = line.tail.then(async () => {
      try {
        await this.#run(work, signal, how.heavy ?? false)
      } catch (error) {
        this.#onProblem(error)
      }
      line.length -= 1
      if (line.length === 0 && this.#lines.get(id) === line) this.#lines.delete(id)
    })
  }

  async #run(work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal, heavy: boolean): Promise<void> {
    if (heavy) await this.#place()
    try {
      if (!signal.aborted) await work(signal)
    } finally {
      if (heavy) this.#leave()
    }
  }

  /** Ends what is done to the instance and drops what waits; what is started from now on comes after it. */
  interrupt(id: string): void {
    const line = this.#lines.get(id)
    if (!line) return
    line.abort.abort(new ServiceError('cancelled', 'it is being deleted'))
    line.abort = new AbortController()
  }

  /** When nothing that is done to this one runs or waits any more. */
  async idleAt(id: string): Promise<void> {
    for (let line = this.#lines.get(id); line; line = this.#lines.get(id)) await line.tail
  }

  /** When nothing runs or waits any more. */
  async idle(): Promise<void> {
    while (this.#lines.size > 0) await Promise.all([...this.#lines.values()].map(({ tail }) => tail))
  }

  /** Resolves when what runs has ended; what waits does not begin. */
  async stop(): Promise<void> {
    this.#stopping = true
    const reason = new ServiceError('cancelled', 'the service is stopping; this goes on when it starts again')
    for (const { abort } of this.#lines.values()) abort.abort(reason)
    await this.idle()
  }

  async #place(): Promise<void> {
    if (this.#heavy < this.#concurrency) this.#heavy += 1
    else await new Promise<void>((given) => this.#waiting.push(given)) // is handed the place of the one that leaves
  }

  #leave(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#heavy -= 1
  }
}
