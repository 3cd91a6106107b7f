import type { Compilable, Kysely } from 'kysely'
import type { CatalogTables } from './sql-schema.ts'

/**
 * What the SQL adapters share stands in the `sql-*.ts` files; an adapter brings a `SqlSession`. Queries are built by Kysely
 * once for each shape and compiled to text; a call only fills in the values, because building and compiling costs more than
 * running the query.
 */
export type SqlValue = string | number | null | Uint8Array

export interface SqlSession {
  rows<R>(statement: SqlStatement, values: SqlValues): Promise<readonly R[]>
  /** @returns how many rows it changed */
  run(statement: SqlStatement, values: SqlValues): Promise<number>
}

/** What differs between the databases, beyond what Kysely hides. */
export interface SqlFlavour {
  /** Only builds and compiles; statements are run by a session. */
  readonly builder: Kysely<CatalogTables>
  /** Text after a table's name that makes the planner use this index; empty where the database has no such words. */
  useIndex(name: string): string
}

export interface SqlStatement {
  readonly text: string
  /** In the order of the placeholders. */
  readonly parameters: readonly (Slot | SqlValue)[]
}
export type SqlValues = Readonly<Record<string, SqlValue>>

/** Stands in a query for a value that each call brings. */
export class Slot {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

/** A placeholder that the query builder takes for a value of type `T`. */
export const slot = <T>(name: string): T => new Slot(name) as T

export function statement(query: Compilable): SqlStatement {
  const { sql, parameters } = query.compile()
  return { text: sql, parameters: parameters as readonly (Slot | SqlValue)[] }
}

/** The values of one call, in the order of the placeholders. A slot without a value is a mistake in this program. */
export function bind({ text, parameters }: SqlStatement, values: SqlValues): SqlValue[] {
  return parameters.map((parameter) => {
    if (!(parameter instanceof Slot)) return parameter
    const value = values[parameter.name]
    if (value === undefined) throw new TypeError(`no value for "${parameter.name}" in: ${text}`)
    return value
  })
}
