import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { ErrorCode, ServiceError } from '../../base/errors.ts'
import type { AuthenticatedCaller } from '../../identity/identity.ts'

/**
 * One API of the service: a folder beside this file, mounted under its prefix. The server (server.ts) gives each request an id
 * and, unless the route says `config: { auth: 'none' }`, its caller; it turns a thrown ServiceError into a status by the one
 * table below and lets the API that was asked write the body, for each of them has a form that its clients know.
 */
export interface Api {
  readonly name: string
  /** `/image`, without a slash at the end. */
  readonly prefix: string
  /** Where the clients of this API know another status for a code than the table's. */
  readonly statuses?: Partial<Readonly<Record<ErrorCode, number>>>
  /** What a connection to this API may become instead of an exchange of HTTP. */
  readonly upgrade?: Upgrade
  register(app: FastifyInstance): void | Promise<void>
  renderError(error: ServiceError, status: number, request: FastifyRequest): RenderedError
}
export interface Upgrade {
  /** The whole path, without a query. */
  readonly path: string
  /**
   * Answers the request, and has the connection from then on. It says no by throwing, before it has answered.
   * @returns what the log shall say of it
   */
  accept(request: IncomingMessage, socket: Socket, head: Buffer): Promise<Readonly<Record<string, string>>>
  /** Ends all of them: the service stops. */
  close(): void
}
export interface RenderedError {
  readonly contentType: string
  readonly body: string
  readonly headers?: Readonly<Record<string, string>>
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set before the handler runs unless the route has `auth: 'none'` or `'own'`. */
    caller: AuthenticatedCaller | null
  }
  interface FastifyContextConfig {
    /** own: a token must be there, and the handler alone knows what it is good for. */
    readonly auth?: 'required' | 'none' | 'own'
  }
}

/** The caller of a route that requires one. */
export function callerOf(request: FastifyRequest): AuthenticatedCaller {
  if (!request.caller) throw new Error('route has no authentication')
  return request.caller
}

/** The only place where an error meets a status, but for `statuses` of an API. */
export const statusOf = {
  'invalid-request': 400,
  'invalid-image': 400,
  unauthenticated: 401,
  denied: 403,
  'not-found': 404,
  conflict: 409,
  gone: 410,
  'too-large': 413,
  'over-quota': 413,
  unsupported: 415,
  'range-not-satisfiable': 416,
  'too-many-requests': 429,
  corrupt: 500,
  'no-space': 507,
  unavailable: 503,
  cancelled: 499,
} as const satisfies Record<ErrorCode, number>
