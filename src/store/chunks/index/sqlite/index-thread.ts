/** The thread that owns the index's database: takes batches of calls, runs each batch as one transaction, answers it. */
import { parentPort, workerData } from 'node:worker_threads'
import { isServiceError } from '../../../../base/errors.ts'
import { ChunkTables, TransactionUndone } from './chunk-tables.ts'
import type { Answer, Answers, Batch, Call, CallName, Failure } from './messages.ts'

/** What others rely on as soon as it is answered. The rest may be lost by a power cut, and is found again when opening. */
const durableCalls: ReadonlySet<CallName> = new Set(['beginSession', 'addPack', 'complete', 'removePack', 'distrust', 'clear'])

const port = parentPort
if (!port) throw new Error('index-thread.ts runs as a worker thread')
const reply = (message: Answers) => port.postMessage(message)

function failureOf(error: unknown): Failure {
  if (isServiceError(error)) return { code: error.code, message: error.message, details: error.details }
  const { errcode, message } = error as { errcode?: number; message?: string }
  const primary = (errcode ?? 0) & 0xff // https://www.sqlite.org/rescode.html: the low byte is the primary code
  if (primary === 13) return { code: 'no-space', message: 'The disk of the index is full: free some space.', details: {} }
  if (primary === 5 || primary === 6)
    return { code: 'unavailable', message: 'Another process uses this store: stop it first.', details: {} }
  if (primary === 11 || primary === 26)
    return {
      code: 'corrupt',
      message: `The index is damaged (${message}): stop the service, delete the index file, and run "imprint store rebuild".`,
      details: {},
    }
  return { code: 'unavailable', message: `The index failed: ${message}.`, details: { errcode: errcode ?? 0 } }
}

try {
  const tables = new ChunkTables((workerData as { path: string }).path)
  const run = ({ name, values }: Call): unknown =>
    (tables[name] as (...values: readonly unknown[]) => unknown).apply(tables, values as unknown[])
  const attempt = (call: Call): Answer => {
    try {
      return { value: tables.attempt(() => run(call)) }
    } catch (error) {
      if (error instanceof TransactionUndone) throw error.cause
      return { failure: failureOf(error) }
    }
  }
  port.on('message', ({ calls, close }: Batch) => {
    let answers: readonly Answer[]
    try {
      answers = tables.transaction(
        calls.some(({ name }) => durableCalls.has(name)),
        () => calls.map(attempt),
      )
    } catch (error) {
      const failure = failureOf(error) // of the commit itself, or of a call that took all others along: nothing of the batch holds
      answers = calls.map(() => ({ failure }))
    }
    if (close) tables.close()
    reply({ answers })
    if (close) port.close()
  })
  reply({ opened: true })
} catch (error) {
  reply({ failure: failureOf(error) })
}
