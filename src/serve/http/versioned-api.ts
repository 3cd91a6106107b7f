import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ServiceError } from '../../base/errors.ts'
import type { AuthenticatedCaller } from '../../identity/identity.ts'
import { type Api, callerOf, type RenderedError } from './api.ts'
import { faultBody } from './fault-body.ts'
import { parseJson } from './json-body.ts'
import { type Microversions, minorFrom, NotAcceptable, versionHeaders } from './microversion.ts'

/** What Nova's and Cinder's APIs have in common: routes that depend on a microversion, and faults of one form. */
export interface VersionedApi<Request extends VersionedCall> {
  readonly name: Api['name']
  readonly prefix: string
  readonly statuses: NonNullable<Api['statuses']>
  readonly versions: Microversions
  readonly routes: readonly VersionedRoute<Request>[]
  /** Where routes lie below the prefix: `/v2.1`. */
  readonly folders: readonly string[]
  /** What tells the client the request's id, beside the header that all APIs have. */
  readonly requestIdHeader: string
  /** What tells which versions there are, open to everybody: by path below the prefix. */
  readonly discovery: Readonly<Record<string, (request: FastifyRequest) => Discovery>>
  readonly baseUrlOf: (request: FastifyRequest) => string
  /** Adds what the handlers of this API stand on. */
  callOf(call: VersionedCall, request: FastifyRequest): Request
}
export interface Discovery {
  readonly status: 200 | 300
  readonly body: object
}

export interface VersionedRoute<Request extends VersionedCall> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Below the folders of the API. */
  readonly path: string
  /** The first minor version that has it. */
  readonly since?: number
  /** The last one. */
  readonly until?: number
  handle(call: Request): Promise<Answer> | Answer
}

/** One request, as the handlers see it. */
export interface VersionedCall {
  readonly caller: AuthenticatedCaller
  readonly params: Readonly<Record<string, string>>
  readonly query: URLSearchParams
  /** Parsed, and nothing else; undefined where none came. */
  readonly body: unknown
  /** 79 for 2.79. */
  readonly minor: number
}

export interface Answer {
  readonly status: number
  readonly body?: object
  readonly headers?: Readonly<Record<string, string>>
}
export const ok = (body: object): Answer => ({ status: 200, body })
export const accepted: Answer = { status: 202 }
export const noContent: Answer = { status: 204 }

/** A part of the path, as the router decoded it. */
export const part = ({ params }: Pick<VersionedCall, 'params'>, name: string): string => params[name] ?? ''

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const

export function versionedApi<Request extends VersionedCall>(api: VersionedApi<Request>): Api {
  const { name, prefix, statuses } = api
  return {
    name,
    prefix,
    statuses,
    register(app: FastifyInstance) {
      app.removeAllContentTypeParsers()
      app.addContentTypeParser('*', { parseAs: 'string' }, readBody)
      for (const [path, tell] of Object.entries(api.discovery)) {
        app.get(path, { config: { auth: 'none' as const } }, async (request, reply) => {
          const { status, body } = tell(request)
          return reply.code(status).send(body)
        })
      }
      for (const [path, ofPath] of byPath(api)) registerPath(app, api, path, ofPath)
    },
    renderError: (error, status, request) => rendered(api, error, status, request),
  }
}

function rendered<R extends VersionedCall>(
  api: VersionedApi<R>,
  error: ServiceError,
  status: number,
  request: FastifyRequest,
): RenderedError {
  const identity = `Keystone uri="${api.baseUrlOf(request)}/identity"`
  return {
    contentType: 'application/json; charset=UTF-8',
    body: faultBody(status, error.message),
    headers: { ...headersOf(api, request), ...(status === 401 ? { 'www-authenticate': identity } : {}) },
  }
}

function registerPath<R extends VersionedCall>(
  app: FastifyInstance,
  api: VersionedApi<R>,
  path: string,
  routes: readonly VersionedRoute<R>[],
): void {
  const methods = new Set(routes.map(({ method }) => method))
  for (const method of methods) {
    const ofMethod = routes.filter((route) => route.method === method)
    app.route({ method, url: path, handler: (request, reply) => respond(api, ofMethod, request, reply) })
  }
  const allow = [...methods, ...(methods.has('GET') ? ['HEAD'] : [])].join(', ')
  app.route({
    method: METHODS.filter((method) => !(methods as ReadonlySet<string>).has(method)),
    url: path,
    exposeHeadRoute: false,
    handler: (request, reply) =>
      reply
        .code(405)
        .headers({ ...headersOf(api, request), allow })
        .type('application/json')
        .send(faultBody(405, `${request.method} is not served here: the header Allow lists what is`)),
  })
}

/** @param routes those of the path and the method: they differ by the versions that have them */
async function respond<R extends VersionedCall>(
  api: VersionedApi<R>,
  routes: readonly VersionedRoute<R>[],
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const minor = spokenBy(api, request)
  if (minor instanceof NotAcceptable) {
    return reply.code(406).headers(headersOf(api, request)).type('application/json').send(faultBody(406, minor.message))
  }
  const { least, major } = api.versions
  const route = routes.find(({ since = least, until = minor }) => minor >= since && minor <= until)
  if (!route) throw new ServiceError('not-found', `there is nothing at this path in version ${major}.${minor}`)
  const call: VersionedCall = {
    caller: callerOf(request),
    params: request.params as Readonly<Record<string, string>>,
    query: queryOf(request.url),
    body: request.body ?? undefined,
    minor,
  }
  const { status, body, headers = {} } = await route.handle(api.callOf(call, request))
  reply.code(status).headers({ ...headersOf(api, request), ...headers })
  return body === undefined ? reply.send() : reply.type('application/json').send(JSON.stringify(body))
}

function spokenBy<R extends VersionedCall>({ versions }: VersionedApi<R>, request: FastifyRequest): number | NotAcceptable {
  try {
    return minorFrom(versions, request.headers)
  } catch (error) {
    if (error instanceof NotAcceptable) return error
    throw error
  }
}

/** Also of refusals: clients learn from them which version was spoken. */
function headersOf<R extends VersionedCall>(
  { versions, requestIdHeader }: VersionedApi<R>,
  request: FastifyRequest,
): Record<string, string> {
  let minor = versions.least
  try {
    minor = minorFrom(versions, request.headers)
  } catch {
    // it is being refused for that
  }
  return { ...versionHeaders(versions, minor), [requestIdHeader]: request.id }
}

function readBody(request: FastifyRequest, body: string | Buffer, done: (error: Error | null, body?: unknown) => void): void {
  try {
    const text = String(body)
    const type = request.headers['content-type'] ?? ''
    if (text.trim() !== '' && !/^application\/(json|[\w.-]+\+json)\s*(;|$)/i.test(type)) {
      throw Object.assign(new Error('Unsupported Content-Type'), { statusCode: 415 })
    }
    done(null, parseJson(text))
  } catch (error) {
    done(error as Error)
  }
}

function byPath<R extends VersionedCall>({ routes, folders }: VersionedApi<R>): Map<string, VersionedRoute<R>[]> {
  const paths = new Map<string, VersionedRoute<R>[]>()
  for (const folder of folders) {
    for (const route of routes) {
      const path = folder + route.path
      paths.set(path, [...(paths.get(path) ?? []), route])
    }
  }
  return paths
}

const noQuery = new URLSearchParams()
function queryOf(url: string): URLSearchParams {
  const mark = url.indexOf('?')
  return mark < 0 ? noQuery : new URLSearchParams(url.slice(mark + 1))
}
