import type { DatabaseSync } from 'node:sqlite'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { CatalogWriter } from '../catalog.ts'
import type { Journal } from '../journal.ts'
import { isJournalled, type JournalChange } from '../journal-change.ts'
import type { JournalSegment } from '../journal-format.ts'
import { toServiceError } from './sqlite-errors.ts'

const MAX_BATCH = 32 // works that share one transaction: its fate when the disk is full, and 15 ms in which nothing else is answered

/** Makes the writer that one work is given. It refuses to be used once `isOpen` says no. */
export type MakeWriter = (changed: (change: JournalChange) => void, isOpen: () => boolean) => CatalogWriter

interface Waiting {
  readonly work: (tx: CatalogWriter) => Promise<unknown>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

/** A committed transaction that is not yet acknowledged. */
interface Committed {
  readonly dirty: boolean
  /** Whether it is acknowledged only once the journal has all that it is owed. */
  readonly waitsForJournal: boolean
  /** The journal number of the transaction and its lines; absent when it changed nothing that the journal keeps. */
  readonly journal?: { readonly n: number; readonly lines: readonly string[] }
  readonly acknowledge: () => void
  readonly fail: (error: unknown) => void
}

interface Owed extends JournalSegment {
  readonly lines: readonly string[]
}

/**
 * Runs works one after another, those that wait together in one transaction, each in its own savepoint. A commit does not wait
 * for the disk. Behind it a second loop takes what is committed so far, syncs the write-ahead log once, puts one journal
 * segment, and acknowledges it all; works that come meanwhile gather for the next transaction. docs/decisions/catalog-durability.md says why this is safe.
 */
export class WriteQueue {
  readonly #database: DatabaseSync
  readonly #makeWriter: MakeWriter
  readonly #sync: () => Promise<void>
  readonly #journal: Journal | undefined
  readonly #onCommit: (changes: readonly JournalChange[]) => void
  readonly #afterBatch: () => Promise<void>
  readonly #sql: Record<'begin' | 'savepoint' | 'release' | 'undo' | 'commit', () => void>
  readonly #putOutbox: (lines: string) => number
  readonly #clearOutbox: (upTo: number) => void
  readonly #changeCount: () => number

  #waiting: Waiting[] = []
  #running: Promise<void> | undefined
  #committed: Committed[] = []
  #flushing: Promise<void> | undefined
  /** Segments that the journal has refused so far, in order; they stand in the outbox too. */
  #owed: Owed[] = []
  #journaled = 0
  #cleared = 0
  #poison: ServiceError | undefined
  #closed = false

  constructor(options: {
    readonly database: DatabaseSync
    readonly makeWriter: MakeWriter
    /** Makes all commits so far durable. */
    readonly sync: () => Promise<void>
    readonly journal: Journal | undefined
    /** Told in the same step as each commit what it changed: nothing is read in between. */
    readonly onCommit: (changes: readonly JournalChange[]) => void
    /** Runs between two batches, while nothing is written. */
    readonly afterBatch: () => Promise<void>
  }) {
    const { database } = options
    this.#database = database
    this.#makeWriter = options.makeWriter
    this.#sync = options.sync
    this.#journal = options.journal
    this.#onCommit = options.onCommit
    this.#afterBatch = options.afterBatch
    const prepared = (text: string) => {
      const statement = database.prepare(text)
      return () => {
        statement.run()
      }
    }
    this.#sql = {
      begin: prepared('BEGIN IMMEDIATE'),
      savepoint: prepared('SAVEPOINT work'),
      release: prepared('RELEASE work'),
      undo: prepared('ROLLBACK TO work'),
      commit: prepared('COMMIT'),
    }
    const put = database.prepare('INSERT INTO outbox (lines) VALUES (?)')
    const clear = database.prepare('DELETE FROM outbox WHERE n <= ?')
    const count = database.prepare('SELECT total_changes() AS changes')
    this.#putOutbox = (lines) => Number(put.run(lines).lastInsertRowid)
    this.#clearOutbox = (upTo) => clear.run(upTo)
    this.#changeCount = () => Number(count.get()?.changes)
  }

  write<T>(work: (tx: CatalogWriter) => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    if (this.#closed) reject(new ServiceError('unavailable', 'the catalog is closed: start the service again'))
    else this.#waiting.push({ work, resolve: resolve as (value: unknown) => void, reject })
    this.#running ??= this.#run()
    return promise
  }

  /** Resolves when all that is committed now is durable and in the journal. @throws ServiceError when it cannot be */
  flushed(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#acknowledgeLater({ dirty: false, waitsForJournal: true, acknowledge: resolve, fail: reject })
    return promise
  }

  /** From now on every write fails with this. */
  poison(error: ServiceError): void {
    this.#poison ??= error
  }

  /** Lets what waits finish, and takes no more. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#running
    await this.#flushing
  }

  async #run(): Promise<void> {
    await Promise.resolve() // whoever writes in this same turn shares the transaction
    while (this.#waiting.length > 0) {
      await this.#flushing // whoever comes while the disk is busy would wait for it all the same, and shares the next transaction
      const batch = this.#waiting.splice(0, MAX_BATCH)
      await this.#transaction(batch)
      await this.#afterBatch().catch((cause: unknown) => {
        this.poison(
          new ServiceError('unavailable', "the catalog's files cannot be looked at: restart the service", {}, { cause }),
        )
      })
    }
    this.#running = undefined
  }

  async #transaction(batch: readonly Waiting[]): Promise<void> {
    const refusal = await this.#payJournal()
    if (this.#poison) return failAll(batch, this.#poison)
    try {
      const before = this.#changeCount()
      this.#sql.begin()
      const { done, changes, lines } = await this.#runAll(batch, refusal)
      const dirty = this.#changeCount() !== before
      const journal = this.#journal && lines.length > 0 ? { n: this.#putOutbox(lines.join('\n')), lines } : undefined
      const cleared = this.#journaled
      if (cleared > this.#cleared && dirty) this.#clearOutbox(cleared)
      try {
        this.#sql.commit()
      } finally {
        this.#onCommit(changes) // also where it failed, for it may have been made all the same
      }
      if (dirty) this.#cleared = cleared
      failpoint('catalog:committed')
      this.#acknowledgeLater({
        dirty,
        waitsForJournal: journal !== undefined,
        ...(journal && { journal }),
        acknowledge: () => {
          for (const { waiting, result } of done) waiting.resolve(result)
        },
        fail: (error) =>
          failAll(
            done.map(({ waiting }) => waiting),
            error,
          ),
      })
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      failAll(batch, toServiceError(error)) // those that failed by themselves have been told already
    }
  }

  /** @param refusal why changes that the journal keeps cannot be made now */
  async #runAll(batch: readonly Waiting[], refusal: unknown) {
    const done: { readonly waiting: Waiting; readonly result: unknown }[] = []
    const changes: JournalChange[] = []
    const lines: string[] = []
    for (const waiting of batch) {
      const own: JournalChange[] = []
      const ownLines: string[] = [] // made when SQLite gets its text: whoever changes the object later changes neither
      let isOpen = true
      this.#sql.savepoint()
      try {
        const result = await waiting.work(
          this.#makeWriter(
            (change) => {
              own.push(change)
              if (isJournalled(change)) ownLines.push(JSON.stringify(change))
            },
            () => isOpen && this.#database.isTransaction,
          ),
        )
        if (refusal !== undefined && ownLines.length > 0) throw refusal
        this.#sql.release()
        for (const change of own) changes.push(change)
        for (const line of ownLines) lines.push(line)
        done.push({ waiting, result })
      } catch (error) {
        waiting.reject(toServiceError(error))
        if (!this.#database.isTransaction) throw error // SQLite has undone the whole transaction
        this.#sql.undo()
        this.#sql.release()
      } finally {
        isOpen = false
      }
    }
    return { done, changes, lines }
  }

  #acknowledgeLater(committed: Committed): void {
    this.#committed.push(committed)
    this.#flushing ??= this.#flush()
  }

  async #flush(): Promise<void> {
    await Promise.resolve()
    while (this.#committed.length > 0) {
      const group = this.#committed.splice(0)
      if (group.some(({ dirty }) => dirty)) await this.#syncOnce()
      const refusal = this.#poison ?? (await this.#writeJournal(group))
      for (const { waitsForJournal, acknowledge, fail } of group) {
        if (this.#poison || (refusal !== undefined && waitsForJournal)) fail(this.#poison ?? refusal)
        else acknowledge()
      }
    }
    this.#flushing = undefined
  }

  async #syncOnce(): Promise<void> {
    try {
      await this.#sync()
    } catch (cause) {
      // the kernel may have dropped the pages: a later success would say nothing about them
      const message = 'the disk failed to keep the last changes of the catalog: look at the system log and restart the service'
      this.poison(new ServiceError('unavailable', message, {}, { cause }))
    }
    failpoint('catalog:durable')
  }

  /** @returns why the journal refuses what it is owed; undefined when it owes nothing any more, or nobody waits for it */
  async #writeJournal(group: readonly Committed[]): Promise<unknown> {
    const entries = group.flatMap(({ journal }) => (journal ? [journal] : []))
    const [first, last] = [entries[0]?.n, entries.at(-1)?.n]
    if (first !== undefined && last !== undefined) {
      this.#owed.push({ first, last, lines: entries.flatMap(({ lines }) => lines) })
    }
    if (!group.some(({ waitsForJournal }) => waitsForJournal)) return undefined
    try {
      for (let owed = this.#owed[0]; owed; owed = this.#owed[0]) {
        const { lines, ...segment } = owed
        await this.#journal?.append(segment, lines)
        this.#journaled = owed.last
        this.#owed.shift()
      }
      return undefined
    } catch (error) {
      return error
    }
  }

  /** @returns why the journal still refuses what it is owed */
  async #payJournal(): Promise<unknown> {
    if (this.#owed.length === 0) return undefined
    return this.flushed().then(
      () => undefined,
      (error: unknown) => error,
    )
  }
}

function failAll(batch: readonly Waiting[], error: unknown): void {
  for (const { reject } of batch) reject(error)
}
