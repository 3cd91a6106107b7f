import { type ErrorCode, isServiceError } from '../base/errors.ts'

/** What each exit status of `imprint` means; scripts may rely on them. */
export const exitCodes = {
  0: 'done',
  1: 'failed; the message says why',
  2: 'the command line is wrong',
  3: 'not found',
  4: 'not logged in, or not allowed',
  5: 'the state of the thing forbids it now',
  6: 'over a quota or a limit, or the store is full',
  7: 'the service cannot be reached, or is busy',
  130: 'interrupted',
} as const
export type ExitCode = keyof typeof exitCodes

const exitOf = {
  'invalid-request': 1,
  'invalid-image': 1,
  unauthenticated: 4,
  denied: 4,
  'not-found': 3,
  conflict: 5,
  gone: 3,
  'too-large': 6,
  'over-quota': 6,
  unsupported: 1,
  'range-not-satisfiable': 1,
  'too-many-requests': 7,
  corrupt: 1,
  'no-space': 6,
  unavailable: 7,
  cancelled: 130,
} as const satisfies Record<ErrorCode, ExitCode>

/** The command line itself is wrong: what was typed, and where to read what may be. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** The only place where an error meets an exit status. */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof UsageError) return 2
  if (isServiceError(error)) return exitOf[error.code]
  return 1
}
