/** The worker thread of the examiner: has no file, no socket and no store, only a port to ask for bytes. */
import { parentPort } from 'node:worker_threads'
import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { checked } from '../../disk/block/checked.ts'
import { openImage } from '../../disk/formats/index.ts'
import { examination } from './examination.ts'
import type { FromWorker, Task, ToWorker } from './messages.ts'

const port = parentPort
if (!port) throw new Error('examine-worker runs as a worker thread only')
const send = (message: FromWorker) => port.postMessage(message)

let waiting = new Map<number, (bytes: Uint8Array) => void>()
let nextId = 0

port.on('message', (message: ToWorker) => {
  if (message.kind === 'bytes') {
    waiting.get(message.id)?.(message.bytes)
    waiting.delete(message.id)
    return
  }
  const { job, fileBytes, task } = message
  waiting = new Map()
  const file = checked(sourceOf(job, fileBytes), 'file')
  done(job, file, task).then(send, (error: unknown) => send(failureOf(job, error)))
})

async function done(job: number, file: BlockSource, task: Task): Promise<FromWorker> {
  if (task.kind === 'examine') return { kind: 'examined', job, result: await examination(file, task.declared, task.as) }
  const { readAnatomy } = await import('../../disk/guest/anatomy.ts') // most threads examine alone
  return { kind: 'inspected', job, result: await readAnatomy(await openImage(task.format, file)) }
}

const sourceOf = (job: number, fileBytes: number): BlockSource => ({
  size: fileBytes,
  read: (offset, length) =>
    new Promise((answer) => {
      const id = nextId++
      waiting.set(id, answer)
      send({ kind: 'read', job, id, offset, length })
    }),
  /** Where the file has holes is of no interest here: one run says so. */
  async *extents(offset, length) {
    if (length > 0) yield { offset, length, kind: 'data' }
  },
  async close() {},
})

function failureOf(job: number, error: unknown): FromWorker {
  if (!(error instanceof ServiceError))
    return { kind: 'failed', job, message: error instanceof Error ? error.message : String(error) }
  const { code, message, details } = error
  return { kind: 'refused', job, code, message, details }
}
