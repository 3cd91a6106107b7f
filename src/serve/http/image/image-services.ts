import type { FastifyRequest } from 'fastify'
import type { ImagePorts } from '../../../images/ports.ts'

/** What the image API stands on. */
export interface ImageServices {
  readonly ports: ImagePorts
  /** The address at which the client reached the service, without a slash at the end: `https://host:9797`. */
  readonly baseUrlOf: (request: FastifyRequest) => string
}

/** Where the API is mounted. */
export const PREFIX = '/image'
