import type { Static, TSchema } from '@sinclair/typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type ErrorCode, ServiceError } from '../../../base/errors.ts'
import type { AuthenticatedCaller } from '../../../identity/identity.ts'
import { callerOf } from '../api.ts'
import { piecesOf } from '../request-body.ts'

/** What a route may take and give besides JSON. */
export type MediaType = 'application/json' | 'application/octet-stream' | 'application/x-ndjson'

export interface RouteSpec<Params extends TSchema, Query extends TSchema, Body extends TSchema> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Below `/v1`, with `:name` for parameters. */
  readonly path: string
  readonly summary: string
  readonly description?: string
  /** In the words of the documentation: who may. */
  readonly who: string
  readonly params?: Params
  readonly query?: Query
  /** JSON body; a binary one says so in `takes` and is read by the handler as a stream. */
  readonly body?: Body
  readonly takes?: MediaType
  readonly reply: { readonly status: number; readonly body?: TSchema; readonly gives?: MediaType; readonly description: string }
  readonly errors: readonly ErrorCode[]
  /** Absent: a token of the identity API. own: another, which the handler knows. */
  readonly auth?: 'none' | 'own'
}

export interface Asked<Params, Query, Body> {
  readonly params: Params
  readonly query: Query
  readonly body: Body
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  /** Throws where the route asks for no token of the identity API. */
  readonly caller: AuthenticatedCaller
}

/** A route of `/v1` as data: the router, the OpenAPI document and docs/api-v1.md come from the same object. */
export interface Route extends RouteSpec<TSchema, TSchema, TSchema> {
  mount(app: FastifyInstance): void
}

export function route<Params extends TSchema, Query extends TSchema, Body extends TSchema>(
  spec: RouteSpec<Params, Query, Body> & {
    /** What it returns is the body of the answer; undefined where it has answered by itself. */
    readonly handle: (asked: Asked<Static<Params>, Static<Query>, Static<Body>>) => Promise<unknown>
  },
): Route {
  const { handle, ...data } = spec
  return {
    ...(data as RouteSpec<TSchema, TSchema, TSchema>),
    mount(app) {
      app.route({
        method: spec.method,
        url: spec.path,
        config: { auth: spec.auth ?? 'required' },
        schema: {
          ...(spec.params ? { params: spec.params } : {}),
          ...(spec.query ? { querystring: spec.query } : {}),
          ...(spec.body ? { body: spec.body } : {}),
        },
        async handler(request, reply) {
          const answer = await handle({
            params: request.params as Static<Params>,
            query: request.query as Static<Query>,
            body: request.body as Static<Body>,
            request,
            reply,
            get caller() {
              return callerOf(request)
            },
          })
          if (reply.sent) return reply
          return reply.code(spec.reply.status).send(answer)
        },
      })
    },
  }
}

/** A binary body: the content type parser hands the stream through. @throws ServiceError `unsupported` where it is called something else */
export function bodyOf(request: FastifyRequest): AsyncIterable<Uint8Array> {
  if (request.body === request.raw) return piecesOf(request.raw)
  throw new ServiceError('unsupported', 'the body must be application/octet-stream; docs/api-v1.md has its form')
}
