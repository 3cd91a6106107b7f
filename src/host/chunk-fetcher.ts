import { isServiceError, ServiceError } from '../base/errors.ts'
import { KiB, MiB } from '../base/units.ts'
import { strange } from '../cli/client/http-client.ts'
import type { WireChunk } from '../store/content/encode-chunks.ts'
import type { HostCounters } from './counters.ts'
import type { ChunkOrigin } from './origin.ts'
import { PATIENCE_MS, Patience } from './patience.ts'

/** Requests that are under way side by side … */
const MAX_REQUESTS = 4
/** … and of them those that nobody waits for, so that who waits finds the line half free at worst. */
const MAX_AHEAD_REQUESTS = 2
/** Of one request that somebody waits for. With 64 KiB chunks 4 MiB: bounds what is in memory. */
const MAX_DEMAND_CHUNKS = 64
/** What is fetched ahead is asked for in pieces that take about so long, however fast the line is. */
const AHEAD_MS = 200
const LEAST_AHEAD_BYTES = 256 * KiB
const MOST_AHEAD_BYTES = 4 * MiB

/** Whether somebody waits; may become so later. */
export interface Haste {
  isUrgent: boolean
}

interface Waiting {
  readonly number: number
  readonly haste: Haste
  readonly isVerified: boolean
  /** Asked for alone: a chunk that cannot be had must not keep others away. */
  isAlone: boolean
  resolve(chunk: WireChunk): void
  reject(error: unknown): void
}

/**
 * Brings chunks of one file over the line. What waits goes together: while requests are under way others gather, and leave in one. What
 * somebody waits for goes before what is fetched ahead, and is tried again for as long as there is hope; what is fetched ahead is not.
 */
export class ChunkFetcher {
  readonly #origin: ChunkOrigin
  readonly #counters: HostCounters
  readonly #patienceMs: number
  readonly #over = new AbortController()
  #waiting: Waiting[] = []
  #requests = 0
  #aheadRequests = 0
  #isScheduled = false
  #bytesPerMs = LEAST_AHEAD_BYTES / AHEAD_MS
  #bytesPerChunk = 32 * KiB

  constructor(origin: ChunkOrigin, counters: HostCounters, patienceMs = PATIENCE_MS) {
    this.#origin = origin
    this.#counters = counters
    this.#patienceMs = patienceMs
  }

  /** As it came: whoever asks verifies it. @throws ServiceError as the origin; `cancelled` after `close` */
  fetch(number: number, haste: Haste, isVerified: boolean): Promise<WireChunk> {
    if (this.#over.signal.aborted) return Promise.reject(closedError())
    return new Promise((resolve, reject) => {
      this.#waiting.push({ number, haste, isVerified, isAlone: isVerified, resolve, reject })
      this.#schedule()
    })
  }

  /** Somebody waits now for what was fetched ahead. */
  hurry(): void {
    this.#schedule()
  }

  close(): void {
    this.#over.abort()
    for (const { reject } of this.#waiting.splice(0)) reject(closedError())
  }

  /** Once for all that is asked for in a turn of the event loop: the chunks of one long read leave together. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#hand()
    })
  }

  #hand(): void {
    while (this.#requests < MAX_REQUESTS) {
      const batch = this.#take()
      if (batch.length === 0) return
      const isAhead = batch.every(({ haste }) => !haste.isUrgent)
      this.#requests += 1
      if (isAhead) this.#aheadRequests += 1
      void this.#run(batch, isAhead).finally(() => {
        this.#requests -= 1
        if (isAhead) this.#aheadRequests -= 1
        this.#hand()
      })
    }
  }

  #take(): readonly Waiting[] {
    const urgent = this.#waiting.filter(({ haste }) => haste.isUrgent)
    const [first] = urgent
    if (first?.isAlone) return this.#remove([first])
    if (first) return this.#remove(urgent.filter(({ isAlone }) => !isAlone).slice(0, MAX_DEMAND_CHUNKS))
    if (this.#aheadRequests >= MAX_AHEAD_REQUESTS) return []
    const bytes = Math.min(MOST_AHEAD_BYTES, Math.max(LEAST_AHEAD_BYTES, this.#bytesPerMs * AHEAD_MS))
    const [next] = this.#waiting
    if (next?.isAlone) return this.#remove([next])
    const together = this.#waiting.filter(({ isAlone }) => !isAlone)
    return this.#remove(together.slice(0, Math.max(1, Math.floor(bytes / this.#bytesPerChunk))))
  }

  #remove(taken: readonly Waiting[]): readonly Waiting[] {
    const gone = new Set(taken)
    if (gone.size > 0) this.#waiting = this.#waiting.filter((one) => !gone.has(one))
    return taken
  }

  async #run(batch: readonly Waiting[], isAhead: boolean): Promise<void> {
    const patience = new Patience(this.#patienceMs)
    for (let left = batch; left.length > 0; ) {
      let came = 0
      try {
        for await (const chunk of this.#chunksOf(left, isAhead)) {
          left[came]!.resolve(chunk)
          came += 1
        }
        return
      } catch (error) {
        left = this.#dropAhead(left.slice(came), error)
        if (came > 0) patience.progressed()
        if (left.length > 1 && isServiceError(error, 'corrupt')) return this.#separate(left)
        try {
          await patience.afterFailure(error, this.#over.signal)
        } catch (final) {
          for (const { reject } of left) reject(final)
          return
        }
        this.#counters.retries += 1
      }
    }
  }

  /** @throws ServiceError also where the answer has more or fewer chunks than were asked for */
  async *#chunksOf(asked: readonly Waiting[], isAhead: boolean): AsyncGenerator<WireChunk> {
    const numbers = asked.map(({ number }) => number)
    const isVerified = asked[0]!.isVerified
    const startedAt = performance.now()
    let bytes = 0
    let came = 0
    for await (const chunk of this.#origin.chunks(numbers, { isVerified, signal: this.#over.signal })) {
      came += 1
      if (came > asked.length) throw strange(`asked for ${asked.length} chunks, it sends more`)
      bytes += chunk.bytes.length
      this.#counters.chunksFetched += 1
      this.#counters.bytesFetched += chunk.bytes.length
      yield chunk
    }
    if (came < asked.length) throw new ServiceError('unavailable', `the answer ended after ${came} of ${asked.length} chunks`)
    if (isAhead) this.#measure(bytes / came, bytes / Math.max(1, performance.now() - startedAt))
  }

  #measure(bytesPerChunk: number, bytesPerMs: number): void {
    this.#bytesPerChunk = (3 * this.#bytesPerChunk + bytesPerChunk) / 4
    this.#bytesPerMs = (3 * this.#bytesPerMs + bytesPerMs) / 4
  }

  /** What nobody waits for is for the read that follows to meet. */
  #dropAhead(left: readonly Waiting[], error: unknown): readonly Waiting[] {
    for (const { haste, reject } of left) if (!haste.isUrgent) reject(error)
    return left.filter(({ haste }) => haste.isUrgent)
  }

  /** One of them cannot be had: each goes alone, so that the others can. */
  #separate(left: readonly Waiting[]): void {
    for (const one of left) one.isAlone = true
    this.#waiting.unshift(...left)
  }
}

const closedError = (): ServiceError => new ServiceError('cancelled', 'the disk is closed')
