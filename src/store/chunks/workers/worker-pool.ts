import { Worker } from 'node:worker_threads'
import { ServiceError } from '../../../base/errors.ts'
import type { Job, JobResults, Reply, Request, WorkerSettings } from './jobs.ts'

/** Jobs that any worker may do wait here until one has fewer than this: a spare one, so that no worker waits for a message. */
const JOBS_AHEAD = 2

interface Waiting {
  readonly job: Job
  readonly transfer: readonly ArrayBuffer[]
  resolve(result: unknown): void
  reject(error: unknown): void
}
interface Member {
  thread: Worker
  readonly underWay: Map<number, Waiting>
  /** Streams up to this one were opened before the thread was started: what an earlier thread had of them is gone. */
  lostStreams: number
}

/** Worker threads over one shared memory. Decoding goes before other jobs: a reader waits for it. */
export class WorkerPool {
  readonly #settings: WorkerSettings
  readonly #members: Member[]
  readonly #urgent: Waiting[] = []
  readonly #normal: Waiting[] = []
  #nextId = 1
  #nextStream = 1
  #closed = false

  constructor(count: number, settings: WorkerSettings) {
    this.#settings = settings
    this.#members = Array.from({ length: count }, () => this.#startMember())
  }

  get count(): number {
    return this.#members.length
  }

  get queueDepth(): number {
    return this.#urgent.length + this.#normal.length + this.#members.reduce((sum, { underWay }) => sum + underWay.size, 0)
  }

  /** @param transfer buffers that `job` gives away */
  run<J extends Job>(job: J, transfer: readonly ArrayBuffer[] = []): Promise<JobResults[J['kind']]> {
    return this.#enqueue(job, transfer, (waiting) => {
      const queue = isForReader(job) ? this.#urgent : this.#normal
      queue.push(waiting)
      this.#hand()
    })
  }

  /**
   * A stream whose digest jobs go to one worker, in order. Streams are spread over the workers. With its thread the stream is
   * lost: its jobs fail from then on, since another thread would digest only the rest of it.
   */
  openStream(): number {
    this.#nextStream += 1
    return this.#nextStream
  }

  runInStream<J extends Job & { readonly stream: number }>(job: J): Promise<JobResults[J['kind']]> {
    const member = this.#members[job.stream % this.#members.length]!
    if (job.stream <= member.lostStreams) return Promise.reject(endedError())
    return this.#enqueue(job, [], (waiting) => this.#post(member, waiting))
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#members.map(({ thread }) => thread.terminate()))
    for (const member of this.#members) this.#failAll(member, undefined)
    for (const waiting of [...this.#urgent.splice(0), ...this.#normal.splice(0)]) waiting.reject(closedError())
  }

  #enqueue<R>(job: Job, transfer: readonly ArrayBuffer[], add: (waiting: Waiting) => void): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      if (this.#closed) return reject(closedError())
      add({ job, transfer, resolve: (result) => resolve(result as R), reject })
    })
  }

  #startMember(): Member {
    const member: Member = { thread: this.#startThread(() => member), underWay: new Map(), lostStreams: 0 }
    return member
  }

  #startThread(memberOf: () => Member): Worker {
    const thread = new Worker(new URL('./worker-thread.ts', import.meta.url), {
      workerData: this.#settings,
      name: 'chunk-worker',
      resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 },
    })
    thread.on('message', (reply: Reply) => this.#answer(memberOf(), reply))
    thread.on('error', (error) => this.#replace(memberOf(), thread, error))
    return thread
  }

  #answer(member: Member, reply: Reply): void {
    const waiting = member.underWay.get(reply.id)
    member.underWay.delete(reply.id)
    this.#hand()
    if ('error' in reply) waiting?.reject(new Error(`a worker thread failed: ${reply.error}`))
    else waiting?.resolve(reply.result)
  }

  /** A thread that died takes its jobs and its streams along, and nothing else. */
  #replace(member: Member, thread: Worker, error: unknown): void {
    if (this.#closed || member.thread !== thread) return
    member.thread = this.#startThread(() => member)
    member.lostStreams = this.#nextStream
    this.#failAll(member, error)
    this.#hand()
  }

  #failAll(member: Member, cause: unknown): void {
    for (const waiting of member.underWay.values()) waiting.reject(endedError(cause))
    member.underWay.clear()
  }

  #hand(): void {
    for (;;) {
      const idlest = this.#members.reduce((best, member) => (member.underWay.size < best.underWay.size ? member : best))
      if (idlest.underWay.size >= JOBS_AHEAD) return
      const waiting = this.#urgent.shift() ?? this.#normal.shift()
      if (!waiting) return
      this.#post(idlest, waiting)
    }
  }

  #post(member: Member, waiting: Waiting): void {
    const id = this.#nextId
    this.#nextId += 1
    member.underWay.set(id, waiting)
    member.thread.postMessage({ id, job: waiting.job } satisfies Request, waiting.transfer)
  }
}

const isForReader = ({ kind }: Job): boolean => kind === 'decode' || kind === 'verify' || kind === 'load'

const endedError = (cause?: unknown) =>
  new ServiceError('unavailable', 'A worker thread ended in the middle of its work: try again.', {}, { cause })
const closedError = () => new ServiceError('unavailable', 'The store is closed.')
