import type { FastifyRequest } from 'fastify'
import type { AuthenticatedCaller } from '../../../identity/identity.ts'
import type { Verb } from '../../../identity/policy.ts'
import type { Ports } from '../../../identity/ports.ts'
import type { Fields } from './fields.ts'

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Below `/identity/v3`, or below `/identity` where it starts with `^`. */
  readonly path: string
  readonly auth?: 'required' | 'none'
  /** Checked before the body is looked at, where the rule needs nothing but the caller. */
  readonly verb?: Verb
  handle(call: Call): Promise<Answer> | Answer
}

/** One request, as the handlers see it. */
export interface Call {
  readonly ports: Ports
  /** Only on routes that need a token. */
  readonly caller: AuthenticatedCaller
  readonly request: FastifyRequest
  readonly params: Readonly<Record<string, string>>
  readonly query: Query
  readonly body: Fields
  /** `http://host:port`, as the client reached us. */
  readonly origin: string
  /** `http://host:port/identity/v3` */
  readonly base: string
}

export interface Answer {
  readonly status: number
  readonly body?: object
  readonly headers?: Readonly<Record<string, string>>
}
export const ok = (body: object): Answer => ({ status: 200, body })
export const created = (body: object): Answer => ({ status: 201, body })
export const noContent: Answer = { status: 204 }

/** The query string; of a name that comes twice the last one counts. */
export class Query {
  readonly #values: Readonly<Record<string, unknown>>

  constructor(values: unknown) {
    this.#values = typeof values === 'object' && values !== null ? (values as Record<string, unknown>) : {}
  }

  text(name: string): string | undefined {
    if (!Object.hasOwn(this.#values, name)) return undefined
    const value = this.#values[name]
    const last: unknown = Array.isArray(value) ? value.at(-1) : value
    return typeof last === 'string' ? last : undefined
  }

  /** `?name`, `?name=1`, `?name=true` …: anything but a no. */
  flag(name: string): boolean {
    const text = this.text(name)
    return text !== undefined && isYes(text)
  }

  names(): readonly string[] {
    return Object.keys(this.#values)
  }
}

export const isYes = (text: string): boolean => !['0', 'false', 'no', 'off', 'n', 'f'].includes(text.toLowerCase())
