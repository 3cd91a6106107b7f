import type { FastifyRequest } from 'fastify'
import type { VolumePorts } from '../../../volumes/ports.ts'
import type { VersionedCall, VersionedRoute } from '../versioned-api.ts'

export { type Answer, accepted, noContent, ok, part } from '../versioned-api.ts'

/** What the volume API stands on. */
export interface VolumeServices {
  readonly ports: VolumePorts
  /** The address at which the client reached the service, without a slash at the end: `https://host:9797`. */
  readonly baseUrlOf: (request: FastifyRequest) => string
}

export const PREFIX = '/volume'

export type Route = VersionedRoute<Call>

/** One request, as the handlers see it. */
export interface Call extends VersionedCall {
  readonly ports: VolumePorts
  /** `http://host:port/volume/v3`, with the project where the client named it. */
  readonly base: string
  /** The same without the version. */
  readonly bookmarks: string
}
