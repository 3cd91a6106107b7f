export interface Progress {
  readonly doneBytes: number
  /** Null: nobody can say. */
  readonly totalBytes: number | null
}
export type JobReport = (progress: Progress) => void

/** How far the jobs are that run now, by instance. It is forgotten with the service: who goes on with a job tells anew. */
export class JobProgress {
  readonly #progress = new Map<string, Progress>()

  of(instanceId: string): Progress | null {
    return this.#progress.get(instanceId) ?? null
  }

  reportOf(instanceId: string): JobReport {
    return (progress) => void this.#progress.set(instanceId, progress)
  }

  forget(instanceId: string): void {
    this.#progress.delete(instanceId)
  }
}
