import { type ErrorDetails, ServiceError } from '../../../base/errors.ts'

/** Why what is inside a file was not found: stable words for clients, in `details.reason`. */
export type InsideRefusal = 'nested' | 'amplification' | 'multiple-formats' | 'several-disks' | 'no-disk'

export const refuseInside = (reason: InsideRefusal, problem: string, details: ErrorDetails = {}): ServiceError =>
  new ServiceError('invalid-image', `the file cannot be looked into: ${problem}`, { reason, ...details })
