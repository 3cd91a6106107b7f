import { ServiceError } from '../../base/errors.ts'
import type { DocumentQuery, DocumentReader, DocumentWriter, PutOptions, StoredDocument } from './catalog.ts'
import type { JournalDocument, RecordChange } from './journal-change.ts'
import { type SqlFlavour, type SqlSession, type SqlStatement, slot, statement } from './sql-session.ts'

const MAX_LIST_LIMIT = 1_000_000 // "the whole kind"; kinds are small
const DELETED_PER_PAGE = 500 // documents in memory while many are deleted

/** The statements on documents, compiled once for a database. */
export class DocumentStatements {
  readonly get: SqlStatement
  readonly put: SqlStatement
  readonly delete: SqlStatement
  readonly addIndex: SqlStatement
  readonly dropIndex: SqlStatement
  readonly uniqueHolder: SqlStatement
  readonly expired: SqlStatement
  readonly #builder: SqlFlavour['builder']
  readonly #lists = new Map<string, SqlStatement>()

  constructor({ builder }: SqlFlavour) {
    this.#builder = builder
    this.get = statement(
      builder
        .selectFrom('documents')
        .select(['key', 'version', 'body', 'indexes', 'expires_at'])
        .where('kind', '=', slot<string>('kind'))
        .where('key', '=', slot<string>('key')),
    )
    this.put = statement(
      builder
        .insertInto('documents')
        .values({
          kind: slot('kind'),
          key: slot('key'),
          version: slot('version'),
          body: slot('body'),
          indexes: slot('indexes'),
          expires_at: slot('expiresAt'),
        })
        .onConflict((conflict) =>
          conflict.columns(['kind', 'key']).doUpdateSet((row) => ({
            version: row.ref('excluded.version'),
            body: row.ref('excluded.body'),
            indexes: row.ref('excluded.indexes'),
            expires_at: row.ref('excluded.expires_at'),
          })),
        ),
    )
    this.delete = statement(
      builder.deleteFrom('documents').where('kind', '=', slot<string>('kind')).where('key', '=', slot<string>('key')),
    )
    this.addIndex = statement(
      builder.insertInto('document_indexes').values({
        kind: slot('kind'),
        name: slot('name'),
        value: slot('value'),
        key: slot('key'),
        is_unique: slot('unique'),
      }),
    )
    this.dropIndex = statement(
      builder
        .deleteFrom('document_indexes')
        .where('kind', '=', slot<string>('kind'))
        .where('name', '=', slot<string>('name'))
        .where('value', '=', slot<string>('value'))
        .where('key', '=', slot<string>('key')),
    )
    this.uniqueHolder = statement(
      builder
        .selectFrom('document_indexes')
        .select('key')
        .where('kind', '=', slot<string>('kind'))
        .where('name', '=', slot<string>('name'))
        .where('value', '=', slot<string>('value'))
        .where('is_unique', '=', 1)
        .where('key', '<>', slot<string>('key'))
        .limit(1),
    )
    this.expired = statement(
      builder
        .selectFrom('documents')
        .select(['key', 'version', 'body', 'indexes', 'expires_at'])
        .where('kind', '=', slot<string>('kind'))
        .where('expires_at', '<', slot<number>('now'))
        .limit(slot<number>('limit')),
    )
  }

  list({ index, prefix, after, direction = 'asc' }: DocumentQuery): SqlStatement {
    const shape = `${index !== undefined} ${prefix !== undefined} ${after !== undefined} ${direction}`
    const known = this.#lists.get(shape)
    if (known) return known
    let query = this.#builder
      .selectFrom('documents as d')
      .select(['d.key', 'd.version', 'd.body', 'd.indexes', 'd.expires_at'])
      .where('d.kind', '=', slot<string>('kind'))
      .limit(slot<number>('limit'))
    if (index) {
      query = query
        .innerJoin('document_indexes as x', (join) => join.onRef('x.kind', '=', 'd.kind').onRef('x.key', '=', 'd.key'))
        .where('x.kind', '=', slot<string>('kind'))
        .where('x.name', '=', slot<string>('indexName'))
        .where('x.value', '=', slot<string>('indexValue'))
    }
    const key = index ? 'x.key' : 'd.key'
    if (prefix !== undefined) {
      query = query.where(key as 'd.key', '>=', slot<string>('prefix')).where(key as 'd.key', '<', slot<string>('prefixEnd'))
    }
    if (after !== undefined) query = query.where(key as 'd.key', direction === 'asc' ? '>' : '<', slot<string>('after'))
    const made = statement(query.orderBy(key as 'd.key', direction))
    this.#lists.set(shape, made)
    return made
  }
}

interface DocumentRow {
  readonly key: string
  readonly version: number
  readonly body: string
  readonly indexes: string
  readonly expires_at: number | null
}
interface StoredIndexes {
  readonly indexes: Readonly<Record<string, string>>
  readonly unique: Readonly<Record<string, string>>
}

const HIGHEST_CHARACTER = '\u{10ffff}' // sorts after every key that goes on after a prefix

export class SqlDocumentReader implements DocumentReader {
  protected readonly session: SqlSession
  protected readonly statements: DocumentStatements

  constructor(session: SqlSession, statements: DocumentStatements) {
    this.session = session
    this.statements = statements
  }

  async get<T>(kind: string, key: string): Promise<StoredDocument<T> | undefined> {
    const row = await this.row(kind, key)
    return row && documentOf<T>(kind, row)
  }

  async list<T>(kind: string, query: DocumentQuery = {}): Promise<readonly StoredDocument<T>[]> {
    const { index, prefix = '', after = '', limit = MAX_LIST_LIMIT } = query
    if (!Number.isSafeInteger(limit) || limit < 0) {
      throw new ServiceError('invalid-request', 'the limit of a list is a whole number, zero or more', { limit: String(limit) })
    }
    const rows = await this.session.rows<DocumentRow>(this.statements.list(query), {
      kind,
      prefix,
      prefixEnd: prefix + HIGHEST_CHARACTER,
      after,
      limit,
      indexName: index?.name ?? null,
      indexValue: index?.value ?? null,
    })
    return rows.map((row) => documentOf<T>(kind, row))
  }

  protected async row(kind: string, key: string): Promise<DocumentRow | undefined> {
    const [row] = await this.session.rows<DocumentRow>(this.statements.get, { kind, key })
    return row
  }
}

const documentOf = <T>(kind: string, { key, version, body }: DocumentRow): StoredDocument<T> => ({
  kind,
  key,
  version,
  body: JSON.parse(body) as T, // written by `put`; its shape is the business of whoever owns the kind
})

export class SqlDocumentWriter extends SqlDocumentReader implements DocumentWriter {
  readonly #changed: RecordChange

  constructor(session: SqlSession, statements: DocumentStatements, changed: RecordChange) {
    super(session, statements)
    this.#changed = changed
  }

  async put<T>(kind: string, key: string, body: T, options: PutOptions = {}): Promise<StoredDocument<T>> {
    const { indexes = {}, unique = {}, expect, expiresAt = null } = options
    const stored = await this.row(kind, key)
    assertVersion(kind, key, expect, stored?.version ?? 0)
    const version = (stored?.version ?? 0) + 1
    await this.#replace(stored, { kind, key, version, body, indexes, unique, expiresAt })
    return { kind, key, version, body }
  }

  /** Puts the document as it is, whatever stands there: for the journal. */
  async restore(document: JournalDocument): Promise<void> {
    const { kind, key } = document
    for (const [name, value] of Object.entries(document.unique)) {
      // in a snapshot, which is not of one moment, the value may still stand at its last holder
      for (const holder of await this.#holders(kind, key, name, value)) {
        await this.session.run(this.statements.dropIndex, { kind, name, value, key: holder.key })
      }
    }
    await this.#replace(await this.row(kind, key), document)
  }

  async delete(kind: string, key: string, options: { readonly expect?: number } = {}): Promise<boolean> {
    const stored = await this.row(kind, key)
    assertVersion(kind, key, options.expect, stored?.version ?? 0)
    if (!stored) return false
    await this.#remove(kind, stored)
    return true
  }

  async deleteWhere(kind: string, index: { readonly name: string; readonly value: string }): Promise<number> {
    return this.#removeAll(kind, this.statements.list({ index }), {
      kind,
      indexName: index.name,
      indexValue: index.value,
    })
  }

  async deleteExpired(kind: string, now: number): Promise<number> {
    return this.#removeAll(kind, this.statements.expired, { kind, now })
  }

  async #holders(kind: string, key: string, name: string, value: string): Promise<readonly { readonly key: string }[]> {
    return this.session.rows(this.statements.uniqueHolder, { kind, key, name, value })
  }

  async #removeAll(kind: string, found: SqlStatement, values: Record<string, string | number>): Promise<number> {
    let count = 0
    for (;;) {
      const rows = await this.session.rows<DocumentRow>(found, { ...values, limit: DELETED_PER_PAGE })
      for (const row of rows) await this.#remove(kind, row)
      count += rows.length
      if (rows.length < DELETED_PER_PAGE) return count
    }
  }

  async #replace(stored: DocumentRow | undefined, document: JournalDocument): Promise<void> {
    const { kind, key, version, expiresAt, indexes, unique } = document
    const body = JSON.stringify(document.body)
    if (body === undefined) throw new TypeError(`the body of ${kind} "${key}" is not JSON`)
    for (const [name, value] of Object.entries(unique)) {
      const [holder] = await this.session.rows<{ key: string }>(this.statements.uniqueHolder, { kind, key, name, value })
      if (holder)
        throw new ServiceError('conflict', `another ${kind} has the same ${name}: choose a different one`, { kind, name })
    }
    const entries = JSON.stringify({ indexes, unique } satisfies StoredIndexes)
    await this.session.run(this.statements.put, { kind, key, version, body, indexes: entries, expiresAt })
    if (stored?.indexes !== entries) {
      if (stored) await this.#dropIndexes(kind, stored)
      for (const [name, value, isUnique] of indexEntries({ indexes, unique })) {
        await this.session.run(this.statements.addIndex, { kind, name, value, key, unique: Number(isUnique) })
      }
    }
    this.#changed({ document })
  }

  async #remove(kind: string, stored: DocumentRow): Promise<void> {
    await this.#dropIndexes(kind, stored)
    await this.session.run(this.statements.delete, { kind, key: stored.key })
    this.#changed({ documentDeleted: { kind, key: stored.key } })
  }

  async #dropIndexes(kind: string, { key, indexes }: DocumentRow): Promise<void> {
    for (const [name, value] of indexEntries(JSON.parse(indexes) as StoredIndexes)) {
      await this.session.run(this.statements.dropIndex, { kind, name, value, key })
    }
  }
}

/** One entry for each name and value: a pair that stands in both is unique. */
function indexEntries({ indexes, unique }: StoredIndexes): [name: string, value: string, isUnique: boolean][] {
  const plain = Object.entries(indexes).filter(([name, value]) => unique[name] !== value)
  return [
    ...plain.map(([name, value]): [string, string, boolean] => [name, value, false]),
    ...Object.entries(unique).map(([name, value]): [string, string, boolean] => [name, value, true]),
  ]
}

function assertVersion(kind: string, key: string, expect: number | undefined, version: number): void {
  if (expect === undefined || expect === version) return
  throw new ServiceError('conflict', `this ${kind} was changed by someone else meanwhile: read it again and repeat the change`, {
    kind,
    key: key.slice(0, 80),
    expectedVersion: expect,
    version,
  })
}
