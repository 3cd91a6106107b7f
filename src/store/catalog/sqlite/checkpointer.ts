import { Worker } from 'node:worker_threads'
import type { CheckpointAnswer } from './checkpoint-worker.ts'

/** Runs checkpoints on a thread of their own, one at a time. The thread starts with the first. */
export class Checkpointer {
  readonly #database: string
  #worker: Worker | undefined
  #running: Promise<void> | undefined

  constructor(database: string) {
    this.#database = database
  }

  /** Joins the checkpoint that runs, or starts one. @throws Error with SQLite's `errcode`; the log then only grows */
  run(): Promise<void> {
    this.#running ??= this.#checkpoint().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  async close(): Promise<void> {
    await this.#running?.catch(() => undefined)
    const worker = this.#worker
    if (!worker) return
    const gone = new Promise((resolve) => worker.once('exit', resolve))
    worker.ref()
    worker.postMessage('close')
    await gone
  }

  #checkpoint(): Promise<void> {
    const worker = this.#worker ?? this.#start()
    return new Promise((resolve, reject) => {
      const settle = (outcome: () => void) => {
        worker.off('message', answered)
        worker.off('error', failed)
        worker.unref()
        outcome()
      }
      const failed = (error: unknown) =>
        settle(() => {
          this.#worker = undefined
          reject(error)
        })
      const answered = ({ error }: CheckpointAnswer) =>
        settle(() =>
          error ? reject(Object.assign(new Error(error.message), { code: 'ERR_SQLITE_ERROR', ...error })) : resolve(),
        )
      worker.on('message', answered)
      worker.on('error', failed)
      worker.ref()
      worker.postMessage('checkpoint')
    })
  }

  #start(): Worker {
    this.#worker = new Worker(new URL('./checkpoint-worker.ts', import.meta.url), { workerData: this.#database })
    return this.#worker
  }
}
