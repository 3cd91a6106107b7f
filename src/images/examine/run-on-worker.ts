import type { Worker } from 'node:worker_threads'
import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { FromWorker, Task, ToWorker } from './messages.ts'

/** What to do with an upload, and what that may cost. */
export interface Job {
  readonly number: number
  readonly file: BlockSource
  readonly task: Task
  readonly maxVirtualBytes: number
  readonly maxReadBytes: number
  readonly maxReads: number
  readonly deadlineMs: number
  readonly signal: AbortSignal
}

export type Done = Exclude<FromWorker, { kind: 'read' | 'refused' | 'failed' }>

export interface Outcome {
  readonly result: Done | ServiceError
  /** False when the worker may still be at it, or is gone: it must be ended and replaced. */
  readonly workerIsFree: boolean
}

/** No table that a format may have is read in larger pieces: the L1 table of qcow2 has 32 MiB at most. */
const MAX_READ_BYTES_AT_ONCE = 32 * MiB

/** Does it on an idle worker. Never rejects. */
export async function runOnWorker(worker: Worker, job: Job): Promise<Outcome> {
  const { promise, resolve } = Promise.withResolvers<Outcome>()
  const stop = (error: ServiceError) => resolve({ result: error, workerIsFree: false })
  const overBudget = tooMuchFor(job.task)
  const answer = fileReader(worker, job, stop)

  const onMessage = (message: FromWorker) => {
    if (message.job !== job.number) return
    if (message.kind === 'read') void answer(message)
    else resolve(outcomeOf(message, job))
  }
  const onError = (error: unknown) => stop(overBudget('its parser ran out of memory', {}, error))
  const onExit = () => stop(overBudget('its parser ended early'))
  const onAbort = () => stop(cancelled())
  const deadline = setTimeout(() => stop(overBudget('it takes too long', { deadlineMs: job.deadlineMs })), job.deadlineMs)
  worker.on('message', onMessage).on('error', onError).on('exit', onExit)
  job.signal.addEventListener('abort', onAbort)
  try {
    if (job.signal.aborted) return { result: cancelled(), workerIsFree: true }
    const { number, file, task } = job
    post(worker, { kind: 'task', job: number, fileBytes: file.size, task })
    return await promise
  } finally {
    clearTimeout(deadline)
    worker.off('message', onMessage).off('error', onError).off('exit', onExit)
    job.signal.removeEventListener('abort', onAbort)
  }
}

const post = (worker: Worker, message: ToWorker, transfer: ArrayBuffer[] = []) => worker.postMessage(message, transfer)

/** Answers the worker's reads within the budget. What goes wrong ends the job by way of `stop`. */
function fileReader(worker: Worker, { number, file, task, maxReadBytes, maxReads }: Job, stop: (error: ServiceError) => void) {
  const overBudget = tooMuchFor(task)
  let readBytes = 0
  let reads = 0
  return async ({ id, offset, length }: FromWorker & { kind: 'read' }): Promise<void> => {
    readBytes += length
    reads += 1
    if (readBytes > maxReadBytes || length > MAX_READ_BYTES_AT_ONCE)
      return stop(overBudget('its tables are too large', { maxReadBytes }))
    if (reads > maxReads) return stop(overBudget('its tables are in too many pieces', { maxReads }))
    try {
      const bytes = new Uint8Array(await file.read(offset, length)) // handed over; the source may keep its own
      post(worker, { kind: 'bytes', job: number, id, bytes }, [bytes.buffer])
    } catch (error) {
      if (error instanceof ServiceError) return stop(error)
      stop(new ServiceError('unavailable', 'the uploaded bytes cannot be read back: try again', {}, { cause: error }))
    }
  }
}

function outcomeOf(message: Exclude<FromWorker, { kind: 'read' }>, { task, maxVirtualBytes }: Job): Outcome {
  if (message.kind === 'failed') {
    const result = tooMuchFor(task)('its bytes lead the parser astray', {}, new Error(message.message))
    return { result, workerIsFree: false }
  }
  if (message.kind === 'refused') {
    return { result: new ServiceError(message.code, message.message, message.details), workerIsFree: true }
  }
  const virtualBytes = message.kind === 'examined' ? message.result.virtualBytes : null
  if (virtualBytes === null || virtualBytes <= maxVirtualBytes) return { result: message, workerIsFree: true }
  const problem = `the disk in the image has ${virtualBytes} bytes; at most ${maxVirtualBytes} are accepted`
  return { result: new ServiceError('too-large', problem, { virtualBytes, maxVirtualBytes }), workerIsFree: true }
}

const tooMuchFor =
  ({ kind }: Task) =>
  (problem: string, details: Record<string, number> = {}, cause?: unknown): ServiceError =>
    new ServiceError(
      'invalid-image',
      kind === 'examine'
        ? `the image cannot be checked: ${problem}; convert it with "imprint convert" and upload the result`
        : `the image cannot be looked into: ${problem}`,
      { reason: 'over-budget', ...details },
      cause === undefined ? {} : { cause },
    )

export const cancelled = (): ServiceError => new ServiceError('cancelled', 'the examination of the image was stopped')
