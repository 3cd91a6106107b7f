import { randomUUID } from 'node:crypto'
import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest, LogController } from 'fastify'
import type { Logger } from 'pino'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import type { Authenticator } from '../../identity/identity.ts'
import { asksForWebSocket } from '../websocket/handshake.ts'
import { type Api, statusOf, type Upgrade } from './api.ts'
import type { Metrics } from './metrics.ts'
import { stallGuard } from './stall-guard.ts'

export interface ServerOptions {
  readonly apis: readonly Api[]
  readonly authenticator: Authenticator
  readonly metrics: Metrics
  readonly log: Logger
  readonly tls?: { readonly cert: Uint8Array; readonly key: Uint8Array }
  /** Throws where a part of the service cannot work now. */
  readonly ready: () => Promise<void>
  /** The document at `/` and `/versions`, for clients that discover. */
  readonly versions: (baseUrl: string) => object
  readonly baseUrlOf: (request: FastifyRequest) => string
}

const MAX_HEADER_BYTES = 32 * 1024 // a token is 50 bytes; tempest's longest names and filters stay below 16 KiB
const HEADERS_TIMEOUT_MS = 20_000
const KEEP_ALIVE_MS = 75_000 // longer than the minute that load balancers keep an idle connection
const MAX_CONNECTIONS = 20_000 // a flood of idle ones costs about 30 KiB each and is dropped after HEADERS_TIMEOUT_MS
const STALL_WINDOW_MS = 60_000
const STALL_LEAST_BYTES = 60 * 1024 // 1 KiB/s: the slowest line that would ever finish an image
const SWEEP_MS = 5_000
const MAX_JSON_BYTES = 1024 * 1024
const LINGER_MS = 2_000 // for a refused client to close its side

const startedAt = new WeakMap<FastifyRequest, { ms: number; read: number; written: number }>()

/** The HTTP side of the service: what every request meets, whichever API it asks. Not yet listening. */
export function createServer(options: ServerOptions): FastifyInstance {
  const { apis, authenticator, metrics, log } = options
  const exchanges = new WeakMap<Socket, Exchange>()
  const upgrades = new Map(apis.flatMap(({ upgrade }) => (upgrade ? [[upgrade.path, upgrade] as const] : [])))
  const http = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: HEADERS_TIMEOUT_MS,
    connectionsCheckingInterval: SWEEP_MS,
    keepAliveTimeoutBuffer: 1000,
    // every other request that would like another protocol (HTTP/2, say) is answered in this one
    shouldUpgradeCallback: (request: IncomingMessage) => asksForWebSocket(request) && upgrades.has(pathOf(request)),
  }
  const app = fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => `req-${randomUUID()}`,
    bodyLimit: MAX_JSON_BYTES,
    requestTimeout: 0, // progress is what counts: see stall-guard.ts
    connectionTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE_MS,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 1024 },
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'ignore',
    clientErrorHandler: (error: Error & { code?: string }, socket: Socket) =>
      refuseUnreadable(error, socket, exchanges.get(socket)),
    http,
    ...(options.tls ? { https: { ...http, ...options.tls } } : {}),
  } as object) as unknown as FastifyInstance
  app.server.maxConnections = MAX_CONNECTIONS
  app.server.on('request', (request, response) => exchanges.set(request.socket, { request, response }))

  const guard = stallGuard(STALL_WINDOW_MS, STALL_LEAST_BYTES)
  guard.watch(app.server as Server)
  const sweeper = setInterval(() => metrics.stalled(guard.sweep(Date.now())), SWEEP_MS).unref()
  app.addHook('onClose', () => clearInterval(sweeper))

  let closing = false
  app.addHook('preClose', async () => {
    closing = true
    for (const upgrade of upgrades.values()) upgrade.close()
  })
  app.server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) =>
    hand(upgrades.get(pathOf(request)), request, socket, head, log),
  )
  // Hooks that wait for nothing call back: a promise for each of them would cost as much as a small answer.
  app.addHook('onSend', (_request, reply, payload, done) => {
    if (closing) reply.header('connection', 'close') // what runs may finish; the connection takes nothing after it
    done(null, payload)
  })

  app.decorateRequest('caller', null)
  app.addHook('onRequest', (request, reply, done) => {
    const { bytesRead, bytesWritten } = request.raw.socket
    startedAt.set(request, { ms: performance.now(), read: bytesRead, written: bytesWritten })
    reply.header('x-openstack-request-id', request.id)
    done()
  })

  app.register(async (operations) => registerOperations(operations, options))
  for (const api of apis) {
    app.register(
      async (scope) => {
        scope.addHook('onRequest', async (request) => {
          const { auth } = request.routeOptions.config
          if (auth === 'none') return
          const token = request.headers['x-auth-token']
          if (typeof token !== 'string') throw new ServiceError('unauthenticated', 'this needs a token: send one as X-Auth-Token')
          if (auth === 'own') return
          request.caller = await authenticator.authenticate(token, request.id)
        })
        scope.setErrorHandler((error: FastifyError, request, reply) =>
          answerError(api, toServiceError(error, log, request, api), request, reply),
        )
        scope.setNotFoundHandler((request, reply) =>
          answerError(
            api,
            { error: new ServiceError('not-found', 'there is nothing at this path'), status: 404 },
            request,
            reply,
          ),
        )
        await api.register(scope)
      },
      { prefix: api.prefix },
    )
  }

  app.addHook('onResponse', async (request, reply) => {
    const api = apis.find(({ prefix }) => request.url.startsWith(`${prefix}/`))?.name ?? 'service'
    const start = startedAt.get(request)
    const seconds = start ? (performance.now() - start.ms) / 1000 : 0
    const { bytesRead, bytesWritten } = request.raw.socket
    const bytesIn = Math.max(0, bytesRead - (start?.read ?? bytesRead))
    const bytesOut = Math.max(0, bytesWritten - (start?.written ?? bytesWritten))
    metrics.request({ api, method: request.method, status: reply.statusCode, seconds, bytesIn, bytesOut })
    if (!log.isLevelEnabled('info') || (api === 'service' && reply.statusCode < 400)) return
    log.info({
      event: 'request',
      requestId: request.id,
      method: request.method,
      path: request.url.split('?', 1)[0],
      status: reply.statusCode,
      ms: Math.round(seconds * 1000),
      bytesIn,
      bytesOut,
      user: request.caller?.userId,
      project: request.caller?.projectId,
    })
  })
  return app
}

function registerOperations(app: FastifyInstance, { ready, metrics, versions, baseUrlOf, authenticator }: ServerOptions): void {
  app.get('/healthz', async () => ({ status: 'alive' }))
  app.get('/readyz', async (_, reply) => {
    try {
      await ready()
      return { status: 'ready' }
    } catch (error) {
      return reply
        .code(503)
        .send({ status: 'not ready', reason: error instanceof ServiceError ? error.message : 'internal error' })
    }
  })
  app.get('/metrics', async (request, reply) => {
    if (!isFromThisMachine(request)) {
      const caller = await authenticator.authenticate(String(request.headers['x-auth-token'] ?? ''), request.id).catch(() => null)
      if (!caller?.isAdmin)
        return reply
          .code(401)
          .send({ message: 'from another machine, metrics need the token of an administrator as X-Auth-Token' })
    }
    return reply.type(metrics.contentType).send(await metrics.render())
  })
  app.get('/versions', async (request) => versions(baseUrlOf(request)))
  app.get('/', async (request, reply) => reply.code(300).send(versions(baseUrlOf(request))))
}

/** A proxy on this machine asks for others, and says so in a header. */
const isFromThisMachine = ({ ip, headers }: FastifyRequest): boolean =>
  /^(::1|(::ffff:)?127\..*)$/.test(ip) && !['forwarded', 'x-forwarded-for', 'via'].some((name) => headers[name] !== undefined)

interface Failure {
  readonly error: ServiceError
  readonly status: number
}

/** What was thrown on purpose keeps its code; what Fastify refuses gets ours; anything else is a bug: the log gets all, the client nothing. */
function toServiceError(thrown: FastifyError, log: Logger, request: FastifyRequest, { statuses }: Api): Failure {
  if (isServiceError(thrown)) return { error: thrown, status: statuses?.[thrown.code] ?? statusOf[thrown.code] }
  const status = thrown.statusCode ?? 500
  if (status === 413)
    return {
      error: new ServiceError('too-large', `the body is larger than the ${MAX_JSON_BYTES} bytes that are taken here`),
      status,
    }
  if (status === 415) return { error: new ServiceError('unsupported', 'this media type is not taken here'), status }
  if (status >= 400 && status < 500) return { error: new ServiceError('invalid-request', thrown.message), status }
  log.error({ event: 'unexpected-error', requestId: request.id, err: thrown })
  return { error: new ServiceError('unavailable', `internal error; the log has it under ${request.id}`), status: 500 }
}

function answerError(api: Api, { error, status }: Failure, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { contentType, body, headers } = api.renderError(error, status, request)
  return reply
    .code(status)
    .headers({ ...headers, 'x-imprint-error': error.code })
    .type(contentType)
    .send(body)
}

const pathOf = ({ url = '' }: IncomingMessage): string => url.split('?', 1)[0]!

/** Gives the connection to who asked for it, or answers with why not and closes it. */
function hand(upgrade: Upgrade | undefined, request: IncomingMessage, socket: Socket, head: Buffer, log: Logger): void {
  socket.on('error', () => {}) // it closes, and whoever has it hears that
  if (!upgrade) return void socket.destroy() // a Node before 24.9 asks nobody whether to upgrade
  const path = pathOf(request)
  const started = performance.now()
  upgrade.accept(request, socket, head).then(
    (what) => {
      log.info({ event: 'upgraded', path, ...what })
      socket.once('close', () => {
        const { bytesRead: bytesIn, bytesWritten: bytesOut } = socket
        log.info({ event: 'upgrade-ended', path, ...what, ms: Math.round(performance.now() - started), bytesIn, bytesOut })
      })
    },
    (error: unknown) => {
      if (!isServiceError(error)) log.error({ event: 'unexpected-error', path, err: error })
      const { code, message } = isServiceError(error) ? error : new ServiceError('unavailable', 'internal error; the log has it')
      const status = statusOf[code]
      log.info({ event: 'upgrade-refused', path, status })
      socket.setTimeout(LINGER_MS, () => socket.destroy())
      answerPlainly(socket, `${status} ${STATUS_CODES[status] ?? ''}`, { code, message })
    },
  )
}

/** To a socket that no response stands for. */
function answerPlainly(socket: Socket, status: string, answer: { readonly code: string; readonly message: string }): void {
  const body = JSON.stringify(answer)
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  )
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

/**
 * Bytes that are no HTTP request: answered in plain words where the socket still takes them, then closed. Where they follow a
 * whole request that is still being answered, as those beyond a Content-Length that was too small, its answer goes first.
 */
function refuseUnreadable(error: Error & { code?: string }, socket: Socket, last: Exchange | undefined): void {
  const isAnswering = last !== undefined && !last.response.writableFinished && !last.response.destroyed
  if (!socket.writable || (isAnswering && last.response.headersSent && !last.request.complete)) {
    socket.destroy()
    return
  }
  if (isAnswering && last.request.complete) {
    socket.pause() // nothing after it can be read
    last.response.once('finish', () => refuseUnreadable(error, socket, undefined))
    return
  }
  const [status, message] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', `the headers are larger than ${MAX_HEADER_BYTES} bytes`]
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'the headers did not arrive in time']
        : ['400 Bad Request', 'this is not a well-formed HTTP request']
  answerPlainly(socket, status, { code: 'invalid-request', message })
}
