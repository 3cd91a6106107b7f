import { Worker } from 'node:worker_threads'
import { ServiceError } from '../../../../base/errors.ts'
import type { ChunkColumns, ChunkIndex, CompletedManifest, RefColumns } from '../chunk-index.ts'
import type { ChunkTables } from './chunk-tables.ts'
import type { Answers, Batch, Call, CallName } from './messages.ts'

interface Waiting {
  readonly call: Call
  resolve(value: unknown): void
  reject(error: unknown): void
}
/** Answers of a batch stay in memory until they are read. */
const MAX_BATCH = 256

/**
 * The index in a SQLite file of its own, on a thread of its own. Calls that come while a batch is under way make the next
 * batch: one transaction, and where needed one sync, for all of them.
 */
export class SqliteChunkIndex implements ChunkIndex {
  readonly #thread: Worker
  #queue: Waiting[] = []
  #underWay: Waiting[] = []
  #closing: Promise<void> | undefined
  #ended: ServiceError | undefined

  private constructor(thread: Worker) {
    this.#thread = thread
    thread.on('message', (message: Answers) => this.#answer(message))
    thread.on('error', (error) => this.#end(error))
    thread.on('exit', () => this.#end(undefined))
  }

  /**
   * @param path of the database file, made where absent; `:memory:` for one that lives as long as the process
   * @throws ServiceError `unavailable` while another process has it open; `corrupt`; `unsupported`
   */
  static async open(path: string): Promise<SqliteChunkIndex> {
    const thread = new Worker(new URL('./index-thread.ts', import.meta.url), {
      workerData: { path },
      name: 'chunk-index',
      resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 256 },
    })
    await new Promise<void>((resolve, reject) => {
      thread.once('error', reject)
      thread.once('message', (message: Answers) => {
        thread.off('error', reject)
        if (!('failure' in message)) return resolve()
        const { code, message: text, details } = message.failure
        reject(new ServiceError(code, text, details))
      })
    })
    return new SqliteChunkIndex(thread)
  }

  begin = (owner: string) => this.#call('begin', owner)
  beginSession = (session: string, owner: string) => this.#call('beginSession', session, owner)
  findSession = (session: string) => this.#call('findSession', session)
  claim = (hold: number, digests: Uint8Array) => this.#call('claim', hold, digests)
  claimOwned = (hold: number, digests: Uint8Array) => this.#call('claimOwned', hold, digests)
  registerPack = (pack: string) => this.#call('registerPack', pack)
  addPack = (pack: string, packBytes: number, chunks: ChunkColumns, refs: RefColumns, movedFrom: readonly string[]) =>
    this.#call('addPack', pack, packBytes, chunks, refs, movedFrom)
  forgetPack = (pack: string) => this.#call('forgetPack', pack)
  complete = (hold: number, manifest: CompletedManifest, session?: number) => this.#call('complete', hold, manifest, session)
  commit = (hold: number) => this.#call('commit', hold)
  abandon = (hold: number) => this.#call('abandon', hold)
  drop = (digest: Uint8Array, owner?: string) => this.#call('drop', digest, owner)
  locate = (digests: Uint8Array) => this.#call('locate', digests)
  findManifest = (digest: Uint8Array) => this.#call('findManifest', digest)
  exclusiveBytes = (hold: number, digest: Uint8Array, after: number, limit: number, owner: string | null) =>
    this.#call('exclusiveBytes', hold, digest, after, limit, owner)
  totals = () => this.#call('totals')
  candidates = (sessionsUntouchedSince: number) => this.#call('candidates', sessionsUntouchedSince)
  chunkIds = (digests: Uint8Array) => this.#call('chunkIds', digests)
  restoreManifests = (holds: readonly number[]) => this.#call('restoreManifests', holds)
  removeManifests = (holds: readonly number[], since: number) => this.#call('removeManifests', holds, since)
  unreferenced = (after: number, last: number, limit: number) => this.#call('unreferenced', after, last, limit)
  removeChunks = (ids: Float64Array) => this.#call('removeChunks', ids)
  packs = () => this.#call('packs')
  chunksOfPack = (pack: string) => this.#call('chunksOfPack', pack)
  removePack = (pack: string) => this.#call('removePack', pack)
  losePack = (pack: string) => this.#call('losePack', pack)
  distrust = (pack: string, digests: Uint8Array) => this.#call('distrust', pack, digests)
  trust = (pack: string, digests: Uint8Array) => this.#call('trust', pack, digests)
  distrusted = (pack: string) => this.#call('distrusted', pack)
  manifestsUsing = (digests: Uint8Array) => this.#call('manifestsUsing', digests)
  clear = () => this.#call('clear')

  close(): Promise<void> {
    if (this.#closing) return this.#closing
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#closing = promise
    if (this.#ended) resolve()
    else this.#thread.once('exit', () => resolve())
    this.#send()
    return promise
  }

  #call<Name extends CallName>(name: Name, ...values: Parameters<ChunkTables[Name]>): Promise<ReturnType<ChunkTables[Name]>> {
    return new Promise((resolve, reject) => {
      if (this.#ended || this.#closing)
        return reject(this.#ended ?? new ServiceError('unavailable', 'The index is closed.', { call: name }))
      this.#queue.push({ call: { name, values }, resolve: (value) => resolve(value as ReturnType<ChunkTables[Name]>), reject })
      this.#send()
    })
  }

  #send(): void {
    if (this.#underWay.length > 0) return
    this.#underWay = this.#queue.splice(0, MAX_BATCH)
    const close = this.#closing !== undefined && this.#queue.length === 0
    if (this.#underWay.length === 0 && !close) return
    this.#thread.postMessage({ calls: this.#underWay.map(({ call }) => call), close } satisfies Batch)
  }

  #answer(message: Answers): void {
    if (!('answers' in message)) return
    const asked = this.#underWay
    this.#underWay = []
    this.#send()
    for (const [place, waiting] of asked.entries()) {
      const answer = message.answers[place]!
      if ('value' in answer) waiting.resolve(answer.value)
      else waiting.reject(new ServiceError(answer.failure.code, answer.failure.message, answer.failure.details))
    }
  }

  #end(cause: unknown): void {
    this.#ended ??= new ServiceError('unavailable', 'The thread of the index ended: restart the service.', {}, { cause })
    for (const waiting of [...this.#underWay, ...this.#queue]) waiting.reject(this.#ended)
    this.#underWay = []
    this.#queue = []
  }
}
