import { ServiceError } from '../../../base/errors.ts'

export const notFound = (what: string, id = ''): ServiceError =>
  new ServiceError('not-found', `could not find ${what} "${id.slice(0, 64)}"`)

export const invalid = (message: string): ServiceError => new ServiceError('invalid-request', message)
