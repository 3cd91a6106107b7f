import { STATUS_CODES } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { authorize } from '../../../identity/policy.ts'
import type { Identity } from '../../../identity/service.ts'
import { type Api, callerOf, type RenderedError } from '../api.ts'
import { applicationCredentialRoutes } from './application-credential-routes.ts'
import { authRoutes } from './auth-routes.ts'
import { Fields, parseBody } from './fields.ts'
import { limitRoutes } from './limit-routes.ts'
import { projectRoutes } from './project-routes.ts'
import { roleRoutes } from './role-routes.ts'
import { type Call, Query, type Route } from './route.ts'
import { serviceCatalogRoutes } from './service-catalog.ts'
import { userRoutes } from './user-routes.ts'

export interface IdentityApiOptions {
  readonly identity: Identity
  /** `http://host:port` by which this request reached us, without a slash at the end. */
  readonly baseUrlOf: (request: FastifyRequest) => string
}

const PREFIX = '/identity'
/** As Keystone: no request of this API needs more. */
const MAX_BODY_BYTES = 112 * 1024
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const

/** The identity API, version 3, as the clients of OpenStack speak it: a subset, listed in docs/identity.md. */
export function identityApi({ identity, baseUrlOf }: IdentityApiOptions): Api {
  const v3 = (request: FastifyRequest): string => `${baseUrlOf(request)}${PREFIX}/v3`

  const renderError = (error: ServiceError, status: number, request: FastifyRequest): RenderedError => {
    const retryAfter = error.details.retryAfterSeconds
    return {
      contentType: 'application/json',
      body: JSON.stringify({ error: { code: status, message: error.message, title: STATUS_CODES[status] ?? 'Error' } }),
      headers: {
        vary: 'X-Auth-Token',
        ...(status === 401 ? { 'www-authenticate': `Keystone uri="${v3(request)}"` } : {}),
        ...(typeof retryAfter === 'number' ? { 'retry-after': String(retryAfter) } : {}),
      },
    }
  }

  const respond = async (route: Route, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const origin = baseUrlOf(request)
    const call: Call = {
      ports: identity.ports,
      get caller() {
        return callerOf(request)
      },
      request,
      params: request.params as Readonly<Record<string, string>>,
      query: new Query(request.query),
      body: new Fields((request.body ?? {}) as Readonly<Record<string, unknown>>, ''),
      origin,
      base: `${origin + PREFIX}/v3`,
    }
    if (route.verb) authorize(call.caller, route.verb)
    const { status, body, headers = {} } = await route.handle(call)
    reply.code(status).headers({ vary: 'X-Auth-Token', ...headers })
    return body === undefined ? reply.send() : reply.type('application/json').send(JSON.stringify(body))
  }

  return {
    name: 'identity',
    prefix: PREFIX,
    renderError,
    register(app: FastifyInstance) {
      app.removeAllContentTypeParsers()
      app.addContentTypeParser('*', { parseAs: 'string', bodyLimit: MAX_BODY_BYTES }, readBody)
      for (const [path, ofPath] of byPath(routes)) {
        for (const route of ofPath) {
          const config = { auth: route.auth ?? 'required' }
          app.route({ method: route.method, url: path, config, handler: (request, reply) => respond(route, request, reply) })
        }
        refuseOtherMethods(app, path, ofPath, renderError)
      }
    },
  }
}

/** Some clients send a media type with every request and a body with few: what counts is what came. */
function readBody(request: FastifyRequest, body: string | Buffer, done: (error: Error | null, body?: unknown) => void): void {
  try {
    const text = String(body)
    const type = request.headers['content-type'] ?? ''
    if (text.trim() !== '' && !/^application\/(json|[\w.-]+\+json)\s*(;|$)/i.test(type)) {
      throw new ServiceError('invalid-request', 'the body must be JSON, and its Content-Type application/json')
    }
    done(null, parseBody(text))
  } catch (error) {
    done(error as Error)
  }
}

const discoveryRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '^',
    auth: 'none',
    handle: ({ base }) => ({
      status: 300,
      body: { versions: { values: [version(base)] } },
      headers: { location: `${base}/` },
    }),
  },
  ...['', '/'].map(
    (path): Route => ({
      method: 'GET',
      path,
      auth: 'none',
      handle: ({ base }) => ({ status: 200, body: { version: version(base) } }),
    }),
  ),
]

/** What clients choose the API by: the level of Keystone's API that this one follows. */
const version = (base: string) => ({
  id: 'v3.14',
  status: 'stable',
  updated: '2020-04-07T00:00:00Z',
  links: [{ rel: 'self', href: `${base}/` }],
  'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.identity-v3+json' }],
})

const routes: readonly Route[] = [
  ...discoveryRoutes,
  ...authRoutes,
  ...userRoutes,
  ...projectRoutes,
  ...roleRoutes,
  ...applicationCredentialRoutes,
  ...limitRoutes,
  ...serviceCatalogRoutes,
]

function byPath(all: readonly Route[]): Map<string, Route[]> {
  const paths = new Map<string, Route[]>()
  for (const route of all) {
    const path = route.path.startsWith('^') ? route.path.slice(1) || '/' : `/v3${route.path}`
    paths.set(path, [...(paths.get(path) ?? []), route])
  }
  return paths
}

function refuseOtherMethods(app: FastifyInstance, path: string, served: readonly Route[], renderError: Api['renderError']): void {
  const taken = new Set<string>(served.map(({ method }) => method))
  const others = METHODS.filter((method) => !taken.has(method))
  const allow = [...taken, ...(taken.has('GET') ? ['HEAD'] : [])].join(', ')
  app.route({
    method: taken.has('GET') ? others : [...others, 'HEAD'],
    url: path,
    config: { auth: 'none' },
    exposeHeadRoute: false,
    handler: (request, reply) => {
      const error = new ServiceError('unsupported', `${request.method} is not served here: the header Allow lists what is`)
      const { contentType, body, headers } = renderError(error, 405, request)
      return reply
        .code(405)
        .headers({ ...headers, allow })
        .type(contentType)
        .send(body)
    },
  })
}
