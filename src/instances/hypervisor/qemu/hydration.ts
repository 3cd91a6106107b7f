import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { HydrateOptions } from '../disk-layers.ts'
import { layerNode } from './disk-nodes.ts'
import { depthBelow } from './live-layers.ts'
import type { KeptDisk } from './machine-folder.ts'
import { cancelled, type Run } from './run.ts'

/**
 * Everything under the top layer of a disk is copied into it by QEMU (`block-stream`), which then needs nothing beneath. What was
 * copied before a job was ended is not copied again. A job dismisses itself when it has ended, so how it ended is told by its event,
 * and, where that was missed, by what lies under the layer.
 */
const LOOK_AGAIN_MS = 500
const CANCEL_WITHIN_MS = 10_000

const jobOf = ({ slot }: KeptDisk): string => `hydrate-${slot}`

/** @throws ServiceError `cancelled`, `no-space`, `unavailable`; `conflict` where the machine goes off. The disk is as it was then */
export async function streamIntoTop(run: Run, disk: KeptDisk, options: HydrateOptions): Promise<void> {
  const { signal } = options
  if ((await depthBelow(run, disk)) === 0) return
  const id = jobOf(disk)
  const news = new News(run, id)
  const cancel = () => void run.execute('job-cancel', { id }).catch(() => {}) // it has ended, or it is seen below that it has not
  try {
    await run.execute('block-stream', { device: layerNode(disk.slot, disk.layers.at(-1)!), 'job-id': id })
    failpoint('machine:streaming')
    signal?.addEventListener('abort', cancel, { once: true })
    if (signal?.aborted) cancel()
    await followed(run, id, news, options)
    if ((await depthBelow(run, disk)) === 0) return
  } catch (error) {
    if (!(await run.endsSoon())) throw error
  } finally {
    signal?.removeEventListener('abort', cancel)
    news.close()
  }
  if (signal?.aborted) throw cancelled(run.id)
  throw problem(run, disk, news)
}

/** Settles when the job is over. One that is cancelled and hangs, since its base is away, ends when the machine is found again. */
async function followed(run: Run, id: string, news: News, { signal, onProgress }: HydrateOptions): Promise<void> {
  let giveUpAt = Number.POSITIVE_INFINITY
  for (let job = await find(run, id); job && !news.isOver; job = await find(run, id)) {
    onProgress?.({ doneBytes: job['current-progress'], totalBytes: job['total-progress'] })
    if (signal?.aborted) giveUpAt = Math.min(giveUpAt, performance.now() + CANCEL_WITHIN_MS)
    if (performance.now() > giveUpAt) throw cancelled(run.id)
    await Promise.race([news.next(), pause(LOOK_AGAIN_MS, undefined, { ref: false })])
  }
}

/** Ends a job that nobody waits for any more; the disk is as before. @throws ServiceError `unavailable`, `cancelled` where it hangs */
export async function endStream(run: Run, disk: KeptDisk): Promise<void> {
  const id = jobOf(disk)
  if (!(await find(run, id))) return
  const news = new News(run, id)
  try {
    await run.execute('job-cancel', { id })
    await followed(run, id, news, { signal: AbortSignal.abort() })
  } finally {
    news.close()
  }
}

const find = async (run: Run, id: string) => (await run.execute('query-jobs')).find((job) => job.id === id)

function problem(run: Run, { name }: KeptDisk, { isOff, error }: News): ServiceError {
  const details = { id: run.id, disk: name }
  if (isOff) {
    return new ServiceError('conflict', `The machine ${run.id} went off before its disk "${name}" was whole; start it.`, details)
  }
  const message = `The disk "${name}" of the machine ${run.id} was not copied: ${error ?? 'QEMU does not say why; try again'}.`
  return new ServiceError(error?.includes('No space left') ? 'no-space' : 'unavailable', message, details)
}

/** What QEMU tells of one job. */
class News {
  isOver = false
  isOff = false
  error: string | null = null
  #heard = Promise.withResolvers<void>()
  readonly #end: () => void

  constructor(run: Run, id: string) {
    this.#end = run.onEvent(({ name, data }) => {
      if (data.id !== id && data.device !== id) return
      if (name === 'BLOCK_JOB_COMPLETED' || name === 'BLOCK_JOB_CANCELLED') {
        this.isOver = true
        if (typeof data.error === 'string') this.error = data.error
      }
      this.#tell()
    })
    void run.ended.then(() => {
      this.isOver = true
      this.isOff = true
      this.#tell()
    })
  }

  /** Settles when there is something new. */
  async next(): Promise<void> {
    await this.#heard.promise
    this.#heard = Promise.withResolvers()
  }

  close(): void {
    this.#end()
  }

  #tell(): void {
    this.#heard.resolve()
  }
}
