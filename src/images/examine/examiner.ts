import { Worker } from 'node:worker_threads'
import { ServiceError } from '../../base/errors.ts'
import { GiB, TiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { Anatomy } from '../../disk/guest/anatomy.ts'
import type { Examined, ExaminedAs } from './examination.ts'
import type { Task } from './messages.ts'
import { cancelled, type Done, runOnWorker } from './run-on-worker.ts'

export type { Examined } from './examination.ts'

/** What one examination may cost. Each has a default that honest images of today stay far below. */
export interface ExamineLimits extends ExaminedAs, WorkLimits {
  /** Largest virtual size; beyond it `too-large`. */
  readonly maxVirtualBytes?: number | undefined
}
export interface WorkLimits {
  /** Bytes and number of reads of the file. */
  readonly maxReadBytes?: number | undefined
  readonly maxReads?: number | undefined
  /** Counted from when a thread begins, not from the call. */
  readonly deadlineMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface Examiner {
  /**
   * Examines an upload on a worker thread, and waits for a free one first. Does not close `file`.
   * @throws ServiceError `invalid-image` | `unsupported` with the reason; `invalid-image` with reason `over-budget` when a
   *   limit is met or the worker dies; `too-large`; `cancelled`; errors of `file` pass through
   */
  examine(file: BlockSource, declared: string, limits?: ExamineLimits): Promise<Examined>
  /**
   * Looks into the disk of an image that was examined, on a worker thread. Does not close `file`.
   * @param format Glance `disk_format` of `file`
   * @throws ServiceError as `examine`
   */
  inspect(file: BlockSource, format: string, limits?: WorkLimits): Promise<Anatomy>
  /** Ends the threads; examinations under way fail as `cancelled`. */
  close(): Promise<void>
}

export interface ExaminerOptions {
  /** Threads, started when needed, kept for the next image. */
  readonly workers?: number
  /** Of these, started at once, so that the first image need not wait; absent: none. */
  readonly startedAhead?: number
  /** Heap of each, in MiB. */
  readonly heapMiB?: number
  /** What the threads run; tests give programs that misbehave. */
  readonly program?: URL
}

const DEFAULT_WORKERS = 2
const DEFAULT_HEAP_MIB = 128
const YOUNG_HEAP_MIB = 16
const STACK_MIB = 4
/** A thread that reads hostile bytes knows nothing of the service's settings; only where compiled code is kept. */
const { NODE_COMPILE_CACHE } = process.env
const ENVIRONMENT = NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE }
const DEFAULT_MAX_VIRTUAL_BYTES = 64 * TiB
/** L2 tables of a 1 TiB disk take 128 MiB with clusters of 64 KiB, 16 GiB with clusters of 512 bytes: nobody makes those. */
const DEFAULT_MAX_READ_BYTES = 2 * GiB
const DEFAULT_MAX_READS = 2_000_000
const DEFAULT_DEADLINE_MS = 60_000

export function createExaminer(options: ExaminerOptions = {}): Examiner {
  const { workers = DEFAULT_WORKERS, heapMiB = DEFAULT_HEAP_MIB } = options
  const program = options.program ?? new URL('./examine-worker.ts', import.meta.url)
  const idle: Worker[] = []
  const busy = new Set<Worker>()
  const waiting: (() => void)[] = []
  const closing = new AbortController()
  let jobs = 0

  const start = (): Worker => {
    const resourceLimits = { maxOldGenerationSizeMb: heapMiB, maxYoungGenerationSizeMb: YOUNG_HEAP_MIB, stackSizeMb: STACK_MIB }
    const worker = new Worker(program, { resourceLimits, env: ENVIRONMENT, name: 'examiner' })
    worker.on('error', () => {}) // the job it works for hears of it too; without one there is nobody to tell
    worker.on('exit', () => {
      const at = idle.indexOf(worker)
      if (at >= 0) idle.splice(at, 1)
    })
    return worker
  }

  for (let ahead = 0; ahead < Math.min(workers, options.startedAhead ?? 0); ahead += 1) {
    const worker = start()
    worker.unref()
    idle.push(worker)
  }

  /** Resolves in the order of the calls. An idle thread does not keep the process alive. */
  const take = async (): Promise<Worker> => {
    while (busy.size >= workers) await new Promise<void>((free) => waiting.push(free))
    const worker = idle.pop() ?? start()
    busy.add(worker)
    worker.ref()
    return worker
  }
  const giveBack = (worker: Worker, isFree: boolean): void => {
    busy.delete(worker)
    worker.unref()
    if (isFree && !closing.signal.aborted) idle.push(worker)
    else void worker.terminate()
    waiting.shift()?.()
  }

  const work = async (file: BlockSource, task: Task, limits: WorkLimits, maxVirtualBytes: number): Promise<Done> => {
    const worker = await take()
    const { result, workerIsFree } = await runOnWorker(worker, {
      number: ++jobs,
      file,
      task,
      maxVirtualBytes,
      maxReadBytes: limits.maxReadBytes ?? DEFAULT_MAX_READ_BYTES,
      maxReads: limits.maxReads ?? DEFAULT_MAX_READS,
      deadlineMs: limits.deadlineMs ?? DEFAULT_DEADLINE_MS,
      signal: limits.signal ? AbortSignal.any([limits.signal, closing.signal]) : closing.signal,
    })
    giveBack(worker, workerIsFree)
    if (result instanceof ServiceError) throw result
    return result
  }

  return {
    async examine(file, declared, limits = {}) {
      const { containerFormat, parentBytes, package: asPackage, maxVirtualBytes = DEFAULT_MAX_VIRTUAL_BYTES } = limits
      const as = { containerFormat, parentBytes, package: asPackage }
      const { result } = (await work(file, { kind: 'examine', declared, as }, limits, maxVirtualBytes)) as Done & {
        kind: 'examined'
      }
      return result
    },
    async inspect(file, format, limits = {}) {
      const { result } = (await work(file, { kind: 'inspect', format }, limits, Infinity)) as Done & { kind: 'inspected' }
      return result
    },
    async close() {
      closing.abort(cancelled())
      await Promise.all([...idle.splice(0), ...busy].map((worker) => worker.terminate()))
    },
  }
}
