import { ServiceError } from '../base/errors.ts'

/**
 * Work that goes on after its request was answered. At most `concurrency` at once, the rest wait in turn; a stop tells those
 * that run to end, by their signal, and waits for them. What is cut short is taken up again at the next start (recover.ts).
 */
export class JobRunner {
  readonly #concurrency: number
  readonly #onFailure: (name: string, error: unknown) => void
  readonly #waiting: (() => Promise<void>)[] = []
  readonly #running = new Set<Promise<void>>()
  readonly #stop = new AbortController()
  static readonly MAX_WAITING = 10_000 // each holds a closure of a few hundred bytes

  constructor(options: {
    readonly concurrency: number
    /** Told of a job that threw: the job itself should have recorded its failure. */
    readonly onFailure: (name: string, error: unknown) => void
  }) {
    this.#concurrency = options.concurrency
    this.#onFailure = options.onFailure
  }

  /** @throws ServiceError `unavailable` while stopping, or where too many wait already */
  start(name: string, work: (signal: AbortSignal) => Promise<void>): void {
    if (this.#stop.signal.aborted) throw new ServiceError('unavailable', 'the service is stopping: try again in a minute')
    if (this.#waiting.length >= JobRunner.MAX_WAITING) {
      throw new ServiceError('unavailable', 'too many jobs wait already: try again later', { waiting: this.#waiting.length })
    }
    this.#waiting.push(async () => {
      try {
        await work(this.#stop.signal)
      } catch (error) {
        this.#onFailure(name, error)
      }
    })
    this.#next()
  }

  #next(): void {
    while (this.#running.size < this.#concurrency && !this.#stop.signal.aborted) {
      const job = this.#waiting.shift()
      if (!job) return
      const running = job().finally(() => {
        this.#running.delete(running)
        this.#next()
      })
      this.#running.add(running)
    }
  }

  get depth(): { readonly running: number; readonly waiting: number } {
    return { running: this.#running.size, waiting: this.#waiting.length }
  }

  /** When nothing runs or waits any more. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }

  /** Resolves when every running job has ended; those that wait do not begin. */
  async stop(): Promise<void> {
    this.#stop.abort(new ServiceError('cancelled', 'the service is stopping; the job goes on when it starts again'))
    this.#waiting.length = 0
    await this.idle()
  }
}
