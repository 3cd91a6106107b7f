import { isServiceError } from '../base/errors.ts'
import type { InstanceFault } from './records.ts'

const MAX_MESSAGE = 255 // Nova's column
const MAX_DETAILS = 4096 // the last words of a process

/** Whether the instance's owner can act on it; the others are for administrators, in the log too. */
export const isForOwner = (error: unknown): boolean =>
  isServiceError(error) && !['unavailable', 'corrupt', 'cancelled'].includes(error.code)

/**
 * What a failure leaves on an instance. What its owner can act on is told to the owner; the last words of processes and bugs of
 * ours may name things of this host, and are for administrators.
 * @param otherwise told to the owner in those cases
 */
export function faultFrom(error: unknown, otherwise: string, at: number): InstanceFault {
  const words = error instanceof Error ? error.message : String(error)
  return {
    code: 500,
    message: (isForOwner(error) ? words : otherwise).slice(0, MAX_MESSAGE),
    details: isServiceError(error) ? words.slice(0, MAX_DETAILS) : 'internal error; the log has it',
    at,
  }
}
