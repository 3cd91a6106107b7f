import { ServiceError } from '../../base/errors.ts'

/**
 * The host could not be asked, or went away before it answered: nobody knows how far it came. Whatever a host answers itself, that it failed
 * too, is no such error.
 */
export class HostAway extends ServiceError {
  constructor(message: string, options: ErrorOptions & { readonly details?: ServiceError['details'] } = {}) {
    super('unavailable', message, options.details ?? {}, options)
  }
}
