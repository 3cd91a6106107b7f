/** Who asks: what identity learnt from the token, in the words that every use case needs. */
export interface Caller {
  readonly userId: string
  readonly userName: string
  /** `null` when the token is scoped to the whole system or to nothing. */
  readonly projectId: string | null
  readonly projectName: string | null
  /** Role names of the token's scope, implied ones included: admin implies member implies reader. */
  readonly roles: ReadonlySet<string>
  /** The `admin` role in any project or on the system: as in Glance 25, administers every image. */
  readonly isAdmin: boolean
  readonly systemScope: boolean
  /** Goes into logs, audit records and the `x-openstack-request-id` header: `req-<uuid>`. */
  readonly requestId: string
}

/** The service acting on its own behalf: background jobs and the embedded command line. */
export const serviceCaller = (requestId: string): Caller => ({
  userId: 'imprint',
  userName: 'imprint',
  projectId: null,
  projectName: null,
  roles: new Set(['admin', 'member', 'reader']),
  isAdmin: true,
  systemScope: false,
  requestId,
})
