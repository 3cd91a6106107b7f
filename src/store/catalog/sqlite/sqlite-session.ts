import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { DummyDriver, Kysely, SqliteAdapter, SqliteIntrospector, SqliteQueryCompiler } from 'kysely'
import type { CatalogTables } from '../sql-schema.ts'
import { bind, type SqlFlavour, type SqlSession, type SqlStatement, type SqlValues } from '../sql-session.ts'
import { toServiceError } from './sqlite-errors.ts'

/** Kysely as a compiler only: `SqliteSession` runs the text, on prepared statements that it keeps. */
export const sqliteFlavour: SqlFlavour = {
  builder: new Kysely<CatalogTables>({
    dialect: {
      createAdapter: () => new SqliteAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (builder) => new SqliteIntrospector(builder),
      createQueryCompiler: () => new SqliteQueryCompiler(),
    },
  }),
  useIndex: (name) => `indexed by ${name}`,
}

const MAX_STATEMENTS = 500 // prepared ones kept; each holds some 5 KB, and clients choose the shapes of lists

/** Runs statements on one connection. The answers are there at once; the promises are for the databases that are far away. */
export class SqliteSession implements SqlSession {
  readonly #database: DatabaseSync
  readonly #prepared = new Map<string, StatementSync>()

  constructor(database: DatabaseSync) {
    this.#database = database
  }

  async rows<R>(statement: SqlStatement, values: SqlValues): Promise<readonly R[]> {
    try {
      return this.#prepare(statement.text).all(...bind(statement, values)) as R[]
    } catch (error) {
      throw toServiceError(error)
    }
  }

  async run(statement: SqlStatement, values: SqlValues): Promise<number> {
    try {
      return Number(this.#prepare(statement.text).run(...bind(statement, values)).changes)
    } catch (error) {
      throw toServiceError(error)
    }
  }

  /** The same session for one transaction: whoever keeps it longer is refused. */
  whileOpen(isOpen: () => boolean): SqlSession {
    const assertOpen = () => {
      if (!isOpen()) throw new TypeError('this transaction is over: await everything that it does, and keep nothing of it')
    }
    return {
      rows: (statement, values) => {
        assertOpen()
        return this.rows(statement, values)
      },
      run: (statement, values) => {
        assertOpen()
        return this.run(statement, values)
      },
    }
  }

  #prepare(text: string): StatementSync {
    const known = this.#prepared.get(text)
    if (known) return known
    const oldest = this.#prepared.keys().next()
    if (this.#prepared.size >= MAX_STATEMENTS && !oldest.done) this.#prepared.delete(oldest.value)
    const prepared = this.#database.prepare(text)
    this.#prepared.set(text, prepared)
    return prepared
  }
}
