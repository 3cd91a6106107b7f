import type { FastifyRequest } from 'fastify'
import type { AuthenticatedCaller } from '../../../identity/identity.ts'
import type { InstancePorts } from '../../../instances/ports.ts'

/** What the compute API stands on. */
export interface ComputeServices {
  readonly ports: InstancePorts
  /** The address at which the client reached the service, without a slash at the end: `https://host:9797`. */
  readonly baseUrlOf: (request: FastifyRequest) => string
}

export const PREFIX = '/compute'

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Below `/compute/v2.1`. */
  readonly path: string
  /** The first minor version that has it. */
  readonly since?: number
  /** The last one. */
  readonly until?: number
  handle(call: Call): Promise<Answer> | Answer
}

/** One request, as the handlers see it. */
export interface Call {
  readonly ports: InstancePorts
  readonly caller: AuthenticatedCaller
  readonly params: Readonly<Record<string, string>>
  readonly query: URLSearchParams
  /** Parsed, and nothing else; undefined where none came. */
  readonly body: unknown
  /** 79 for 2.79. */
  readonly minor: number
  /** `http://host:port/compute/v2.1` */
  readonly base: string
  /** `http://host:port/compute`: of links that name no version. */
  readonly bookmarks: string
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
export const part = ({ params }: Call, name: string): string => params[name] ?? ''
