import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import type { AuthenticatedCaller } from '../../../identity/identity.ts'
import type { JobOptions } from '../../../store/chunks/chunk-store.ts'
import { type Route, route } from './route.ts'
import { BackupOptions, CheckOptions, JobLine, NoOptions, StoreStatsBody } from './schemas.ts'
import type { ImprintServices } from './services.ts'

/** A line at least so often: tells proxies and the client that the job is alive. */
const HEARTBEAT_MS = 5_000
const PROGRESS_EVERY_MS = 200
/** Lines that wait for a reader that is slow; beyond it the job waits too. */
const MAX_WAITING_FAULTS = 10_000

const who = 'administrators'
const stream = {
  status: 200,
  gives: 'application/x-ndjson',
  body: JobLine,
  description: 'lines as the job goes; closing the connection ends the job',
} as const
const errors = ['unauthenticated', 'denied', 'conflict'] as const

export const storeRoutes = (services: ImprintServices): readonly Route[] => [
  route({
    method: 'GET',
    path: '/store',
    summary: 'What the store holds',
    who,
    reply: { status: 200, body: StoreStatsBody, description: 'counts and bytes' },
    errors: ['unauthenticated', 'denied'],
    async handle({ caller }) {
      administratorsOnly(caller)
      return services.images.chunks.stats()
    },
  }),
  jobRoute(services, 'collect', 'Remove what no image uses'),
  route({
    method: 'POST',
    path: '/store/check',
    summary: 'Look for damage, and name the images that it touches',
    who,
    body: CheckOptions,
    reply: stream,
    errors,
    async handle({ caller, reply, body }) {
      administratorsOnly(caller)
      const readData = body.readData ?? false
      return runJob(services, reply, (options, emit) => services.jobs.check({ ...options, readData }, (fault) => emit({ fault })))
    },
  }),
  jobRoute(services, 'rebuild', 'Make the index again from the packs'),
  route({
    method: 'POST',
    path: '/store/backup',
    summary: 'Copy what is new into a backup on the machine of the service',
    who,
    body: BackupOptions,
    reply: stream,
    errors: [...errors, 'invalid-request', 'no-space'],
    async handle({ caller, reply, body }) {
      administratorsOnly(caller)
      return runJob(services, reply, (options) => services.jobs.backup(body.folder, options))
    },
  }),
]

/** A job that takes no options. */
const jobRoute = (services: ImprintServices, name: 'collect' | 'rebuild', summary: string): Route =>
  route({
    method: 'POST',
    path: `/store/${name}`,
    summary,
    who,
    body: NoOptions,
    reply: stream,
    errors,
    async handle({ caller, reply }) {
      administratorsOnly(caller)
      return runJob(services, reply, (options) => services.jobs[name](options))
    },
  })

/** @throws ServiceError `denied` */
export function administratorsOnly(caller: AuthenticatedCaller): void {
  if (!caller.isAdmin) throw new ServiceError('denied', 'this is for administrators; log in as one')
}

type Line =
  | { readonly progress: unknown }
  | { readonly fault: unknown }
  | { readonly result: unknown }
  | { readonly error: unknown }

/** Streams a job; a client that closes the connection ends it. */
function runJob(
  { jobs }: ImprintServices,
  reply: FastifyReply,
  work: (options: JobOptions, emit: (line: Line) => void) => Promise<unknown>,
): FastifyReply {
  if (jobs.running) {
    throw new ServiceError('conflict', `the store is busy with "${jobs.running}"; wait until it has ended, or cancel it`)
  }
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort(new ServiceError('cancelled', 'the one who asked for the job has left')))
  return reply
    .code(200)
    .type('application/x-ndjson')
    .send(Readable.from(linesOf(work, gone)))
}

async function* linesOf(work: Parameters<typeof runJob>[2], gone: AbortController): AsyncGenerator<string> {
  const { signal } = gone
  const waiting: Line[] = []
  let progress: { phase: string; done: number; total: number } = { phase: 'starting', done: 0, total: 0 }
  let wake = (): void => {}
  const emit = (line: Line): void => {
    // every fault counts, but a reader that never reads must not fill the memory with them
    if (waiting.length >= MAX_WAITING_FAULTS)
      gone.abort(new ServiceError('cancelled', 'the one who asked does not read the answer'))
    else waiting.push(line)
    wake()
  }
  let end: Line | undefined
  const onProgress: JobOptions['onProgress'] = (state) => {
    progress = { ...state }
  }
  void work({ signal, onProgress }, emit)
    .then(
      (result) => {
        end = { result }
      },
      (error: unknown) => {
        end = { error: describe(error) }
      },
    )
    .finally(() => wake())
  try {
    let saidAt = 0
    let said = ''
    while (!end || waiting.length > 0) {
      for (const line of waiting.splice(0)) yield `${JSON.stringify(line)}\n`
      const now = JSON.stringify({ progress })
      if (now !== said || performance.now() - saidAt > HEARTBEAT_MS) {
        yield `${now}\n`
        said = now
        saidAt = performance.now()
      }
      if (!end && waiting.length === 0) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, PROGRESS_EVERY_MS)
          wake = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      }
    }
    yield `${JSON.stringify(end)}\n`
  } finally {
    gone.abort(new ServiceError('cancelled', 'the one who asked for the job has left'))
  }
}

const describe = (error: unknown): object =>
  isServiceError(error)
    ? { code: error.code, message: error.message, details: error.details }
    : { code: 'unavailable', message: 'internal error; the log of the service has it', details: {} }
