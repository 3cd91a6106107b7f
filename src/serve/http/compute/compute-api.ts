import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { type Api, callerOf } from '../api.ts'
import { novaError } from './error-body.ts'
import { flavorRoutes } from './flavor-routes.ts'
import { hostRoutes } from './host-routes.ts'
import { parseJson } from './json-body.ts'
import { keypairRoutes } from './keypair-routes.ts'
import { limitRoutes } from './limit-routes.ts'
import { MIN_MINOR, minorFrom, NotAcceptable, versionHeaders } from './microversion.ts'
import { type Call, type ComputeServices, PREFIX, type Route } from './route.ts'
import { serverActionRoutes } from './server-actions.ts'
import { metadataRoutes } from './server-metadata.ts'
import { serverPartRoutes } from './server-parts.ts'
import { serverRoutes } from './server-routes.ts'
import { computeVersionDetail, computeVersions } from './versions.ts'

export { computeVersions }

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const

/** Nova's API, version 2.1 and its microversions: a subset, listed in docs/compute.md. */
export function computeApi(services: ComputeServices): Api {
  const { baseUrlOf } = services
  return {
    name: 'compute',
    prefix: PREFIX,
    // a quota is refused as Nova does; what is not served at all is not a matter of media types here
    statuses: { 'over-quota': 403, 'too-large': 400, unsupported: 501 },
    register(app: FastifyInstance) {
      app.removeAllContentTypeParsers()
      app.addContentTypeParser('*', { parseAs: 'string' }, readBody)
      const open = { config: { auth: 'none' as const } }
      app.get('/', open, async (request) => computeVersions(baseUrlOf(request)))
      app.get('/versions', open, async (request) => computeVersions(baseUrlOf(request)))
      for (const path of ['/v2.1', '/v2.1/']) app.get(path, open, async (request) => computeVersionDetail(baseUrlOf(request)))
      for (const [path, ofPath] of byPath(computeRoutes)) registerPath(app, services, path, ofPath)
    },
    renderError(error, status, request) {
      const identity = `Keystone uri="${baseUrlOf(request)}/identity"`
      return {
        contentType: 'application/json; charset=UTF-8',
        body: novaError(status, error.message),
        headers: {
          ...headersOf(request),
          ...(status === 401 ? { 'www-authenticate': identity } : {}),
        },
      }
    },
  }
}

export const computeRoutes: readonly Route[] = [
  ...serverRoutes,
  ...serverActionRoutes,
  ...metadataRoutes,
  ...serverPartRoutes,
  ...flavorRoutes,
  ...keypairRoutes,
  ...limitRoutes,
  ...hostRoutes,
]

function registerPath(app: FastifyInstance, services: ComputeServices, path: string, routes: readonly Route[]): void {
  const methods = new Set(routes.map(({ method }) => method))
  for (const method of methods) {
    const ofMethod = routes.filter((route) => route.method === method)
    app.route({ method, url: path, handler: (request, reply) => respond(services, ofMethod, request, reply) })
  }
  const allow = [...methods, ...(methods.has('GET') ? ['HEAD'] : [])].join(', ')
  app.route({
    method: METHODS.filter((method) => !(methods as ReadonlySet<string>).has(method)),
    url: path,
    exposeHeadRoute: false,
    handler: (request, reply) =>
      reply
        .code(405)
        .headers({ ...headersOf(request), allow })
        .type('application/json')
        .send(novaError(405, `${request.method} is not served here: the header Allow lists what is`)),
  })
}

/** @param routes those of the path and the method: they differ by the versions that have them */
async function respond(
  { ports, baseUrlOf }: ComputeServices,
  routes: readonly Route[],
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const minor = spokenBy(request)
  if (minor instanceof NotAcceptable) {
    return reply.code(406).headers(headersOf(request)).type('application/json').send(novaError(406, minor.message))
  }
  const route = routes.find(({ since = MIN_MINOR, until = minor }) => minor >= since && minor <= until)
  if (!route) throw new ServiceError('not-found', `there is nothing at this path in version 2.${minor}`)
  const bookmarks = baseUrlOf(request) + PREFIX
  const call: Call = {
    ports,
    caller: callerOf(request),
    params: request.params as Readonly<Record<string, string>>,
    query: queryOf(request.url),
    body: request.body ?? undefined,
    minor,
    base: `${bookmarks}/v2.1`,
    bookmarks,
  }
  const { status, body, headers = {} } = await route.handle(call)
  reply.code(status).headers({ ...headersOf(request), ...headers })
  return body === undefined ? reply.send() : reply.type('application/json').send(JSON.stringify(body))
}

function spokenBy(request: FastifyRequest): number | NotAcceptable {
  try {
    return minorFrom(request.headers)
  } catch (error) {
    if (error instanceof NotAcceptable) return error
    throw error
  }
}

/** Also of refusals: clients learn from them which version was spoken. */
function headersOf(request: FastifyRequest): Readonly<Record<string, string>> {
  let minor = MIN_MINOR
  try {
    minor = minorFrom(request.headers)
  } catch {
    // it is being refused for that
  }
  return { ...versionHeaders(minor), 'x-compute-request-id': request.id }
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

function byPath(all: readonly Route[]): Map<string, Route[]> {
  const paths = new Map<string, Route[]>()
  for (const route of all) {
    const path = `/v2.1${route.path}`
    paths.set(path, [...(paths.get(path) ?? []), route])
  }
  return paths
}

const noQuery = new URLSearchParams()
function queryOf(url: string): URLSearchParams {
  const mark = url.indexOf('?')
  return mark < 0 ? noQuery : new URLSearchParams(url.slice(mark + 1))
}
