import type { Caller } from '../base/caller.ts'

/** What the HTTP layer needs on every request; the rest of identity is use cases, a file for each noun, over the catalog. */
export interface Authenticator {
  /**
   * The caller behind a token: known, not expired, not revoked, its user and project enabled. One indexed read.
   * @throws ServiceError `unauthenticated`
   */
  authenticate(token: string, requestId: string): Promise<AuthenticatedCaller>
}

export interface AuthenticatedCaller extends Caller {
  /** Milliseconds since 1970. A long upload outlives its token: it is checked when the request begins. */
  readonly expiresAt: number
  /** SHA-256 of the token, hex: its key in the catalog. The token itself is kept nowhere. */
  readonly tokenKey: string
  /** Present when the token is scoped to the domain: roles hold for its users and projects. */
  readonly domainId?: string
}
