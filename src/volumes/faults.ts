import { isServiceError } from '../base/errors.ts'

const MAX_FAULT = 255

/** What a failure leaves on a volume: what its owner can act on; bugs of ours are in the log. */
export const faultOf = (error: unknown, otherwise: string): string =>
  (isForOwner(error) ? (error as Error).message : otherwise).slice(0, MAX_FAULT)

export const isForOwner = (error: unknown): boolean =>
  isServiceError(error) && !['unavailable', 'corrupt', 'cancelled'].includes(error.code)
