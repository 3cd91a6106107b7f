import { ServiceError } from './errors.ts'
import { type PlaceLimits, Places } from './places.ts'

/** What is done to one thing at a time, in the order in which it was asked for. */
interface Line {
  /** Settles when all that is in line has ended. */
  tail: Promise<void>
  /** Ends what runs and drops what waits. */
  abort: AbortController
  length: number
}

/** Where work waits until there is a place for it among works of its kind. */
export interface Place<Pool extends string> {
  readonly pool: Pool
  /** Whose share of the pool it takes: a project. */
  readonly owner: string
  /** Aborted, the work begins without a place, as it has nothing to do but to end. */
  readonly ends?: AbortSignal
}

/**
 * Work on instances or volumes that goes on after its request was answered. The works of one of them run one after the other; those for
 * which a place is asked also wait until their pool has one. What a stop cuts short is taken up again at the next start, by
 * whoever has recorded it.
 */
export class TaskLines<Pool extends string = never> {
  readonly #pools: ReadonlyMap<string, Places>
  readonly #onProblem: (error: unknown) => void
  readonly #lines = new Map<string, Line>()
  #stopping = false

  /** @param onProblem told of a work that threw: it should have recorded its failure itself */
  constructor(options: {
    readonly pools: Readonly<Record<Pool, PlaceLimits>>
    readonly onProblem: (error: unknown) => void
  }) {
    const pools = Object.entries<PlaceLimits>(options.pools)
    this.#pools = new Map(pools.map(([name, limits]) => [name, new Places(limits)]))
    this.#onProblem = options.onProblem
  }

  /**
   * @param onDropped told where the work will never begin
   * @throws ServiceError `unavailable` while stopping
   */
  start(id: string, work: (signal: AbortSignal) => Promise<void>, place?: Place<Pool>, onDropped?: () => void): void {
    if (this.#stopping) throw new ServiceError('unavailable', 'the service is stopping: try again in a minute')
    const line = this.#lines.get(id) ?? { tail: Promise.resolve(), abort: new AbortController(), length: 0 }
    this.#lines.set(id, line)
    const { signal } = line.abort
    line.length += 1
    line.tail = line.tail.then(async () => {
      try {
        await this.#run(work, signal, place, onDropped)
      } catch (error) {
        this.#onProblem(error)
      }
      line.length -= 1
      if (line.length === 0 && this.#lines.get(id) === line) this.#lines.delete(id)
    })
  }

  async #run(
    work: (signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
    place?: Place<Pool>,
    onDropped?: () => void,
  ): Promise<void> {
    const ends = place?.ends ? [signal, place.ends] : [signal]
    const leave = place ? await this.#pools.get(place.pool)?.take(place.owner, ends) : null
    try {
      if (signal.aborted) onDropped?.()
      else await work(signal)
    } finally {
      leave?.()
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
}
