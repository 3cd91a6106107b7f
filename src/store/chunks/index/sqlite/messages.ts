import type { ErrorCode, ErrorDetails } from '../../../../base/errors.ts'
import type { ChunkTables } from './chunk-tables.ts'

/** What may be asked of the index's thread. */
export type CallName = Exclude<keyof ChunkTables, 'transaction' | 'attempt' | 'close'>
export interface Call {
  readonly name: CallName
  readonly values: readonly unknown[]
}
/** A batch is one transaction; its answers come together. `close` ends the thread after it. */
export interface Batch {
  readonly calls: readonly Call[]
  readonly close: boolean
}
export interface Failure {
  readonly code: ErrorCode
  readonly message: string
  readonly details: ErrorDetails
}
export type Answer = { readonly value: unknown } | { readonly failure: Failure }
/** The first message of the thread says whether the database could be opened. */
export type Answers = { readonly answers: readonly Answer[] } | { readonly opened: true } | { readonly failure: Failure }
