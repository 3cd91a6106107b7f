import type { FastifyRequest } from 'fastify'
import type { InstancePorts } from '../../../instances/ports.ts'
import type { VersionedCall, VersionedRoute } from '../versioned-api.ts'

export { type Answer, accepted, noContent, ok, part } from '../versioned-api.ts'

/** What the compute API stands on. */
export interface ComputeServices {
  readonly ports: InstancePorts
  /** The address at which the client reached the service, without a slash at the end: `https://host:9797`. */
  readonly baseUrlOf: (request: FastifyRequest) => string
}

export const PREFIX = '/compute'

export type Route = VersionedRoute<Call>

/** One request, as the handlers see it. */
export interface Call extends VersionedCall {
  readonly ports: InstancePorts
  /** `http://host:port/compute/v2.1` */
  readonly base: string
  /** `http://host:port/compute`: of links that name no version. */
  readonly bookmarks: string
}
