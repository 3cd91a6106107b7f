export interface Progress {
  readonly doneBytes: number
  /** Null: nobody can say. */
  readonly totalBytes: number | null
}
export type JobReport = (progress: Progress) => void

/**
 * The jobs that run or are about to, by instance: how far they are, and how they are ended. It is forgotten with the service. Who ends a job, and
 * who forgets one, does so in the transaction that finds it, or is done with it: so nothing that was meant for one is left for the next.
 */
export class JobProgress {
  readonly #progress = new Map<string, Progress>()
  readonly #cuts = new Map<string, AbortController>()

  of(instanceId: string): Progress | null {
    return this.#progress.get(instanceId) ?? null
  }

  reportOf(instanceId: string): JobReport {
    return (progress) => void this.#progress.set(instanceId, progress)
  }

  /** Aborted when the job shall end, also where that was said before it ran. */
  cutOf(instanceId: string): AbortSignal {
    return this.#cutOf(instanceId).signal
  }

  /** Ends the job and nothing else that is done to the instance. */
  cut(instanceId: string): void {
    this.#cutOf(instanceId).abort()
  }

  /** Nobody goes on with the job. */
  forget(instanceId: string): void {
    this.#progress.delete(instanceId)
    this.#cuts.delete(instanceId)
  }

  #cutOf(instanceId: string): AbortController {
    const there = this.#cuts.get(instanceId) ?? new AbortController()
    this.#cuts.set(instanceId, there)
    return there
  }
}
