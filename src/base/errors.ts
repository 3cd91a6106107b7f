/** Every failure a caller can act on; each has a paragraph in docs/errors.md. */
export type ErrorCode =
  | 'invalid-request' // the request itself is wrong
  | 'invalid-image' // the bytes are not an image of the declared format, or are hostile
  | 'unauthenticated' // no token, or one that is unknown, expired or revoked
  | 'denied' // known caller, not allowed
  | 'not-found' // absent, or hidden from this caller
  | 'conflict' // the state of the thing forbids it now
  | 'gone' // it existed and is deleted for good
  | 'too-large' // over a fixed limit of size or count
  | 'over-quota' // over the project's limit
  | 'unsupported' // a format, method or media type that is not served
  | 'range-not-satisfiable'
  | 'too-many-requests'
  | 'corrupt' // stored bytes do not match their digest
  | 'no-space' // the store is full
  | 'unavailable' // try again later
  | 'cancelled' // the caller or the service stopped it

export type ErrorDetails = Readonly<Record<string, string | number | boolean | null>>

/** The one error class thrown on purpose; any other error that surfaces is a bug. */
export class ServiceError extends Error {
  override readonly name = 'ServiceError'
  readonly code: ErrorCode
  /** Facts for log and client: ids, limits, offsets. Never secrets, never paths of the host. */
  readonly details: ErrorDetails

  /** @param message one sentence that says what is wrong, where, and what to do next */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.details = details
  }
}

export const isServiceError = (error: unknown, code?: ErrorCode): error is ServiceError =>
  error instanceof ServiceError && (code === undefined || error.code === code)
