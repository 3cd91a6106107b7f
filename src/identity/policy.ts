import { ServiceError } from '../base/errors.ts'
import type { AuthenticatedCaller } from './identity.ts'

/** What a rule may look at in the thing that is asked for; absent where it does not exist. */
export interface Target {
  readonly userId?: string | undefined
  readonly projectId?: string | undefined
}
type Holder = (caller: AuthenticatedCaller, target: Target) => boolean

const admin: Holder = ({ isAdmin }) => isAdmin
const systemReader: Holder = ({ systemScope, roles }) => systemScope && roles.has('reader')
const domainReader: Holder = ({ domainId, roles }) => domainId !== undefined && roles.has('reader')
const sameUser: Holder = ({ userId }, target) => target.userId !== undefined && userId === target.userId
const sameProject: Holder = ({ projectId }, target) => target.projectId !== undefined && projectId === target.projectId
const service: Holder = ({ roles }) => roles.has('service')
const anyone: Holder = () => true

const read = [admin, systemReader, domainReader]
const readOwn = [...read, sameUser]
const inspect = [admin, systemReader]

/**
 * Who may do what: a verb is allowed to a caller whom one of its holders knows. As in Keystone's defaults: `admin` in any scope
 * administers; `reader` on the system or the domain looks; everybody sees to themselves.
 */
export const policy = {
  'user:get': readOwn,
  'user:list': read,
  'user:create': [admin],
  'user:update': [admin],
  'user:delete': [admin],
  'user:projects': readOwn,
  'project:get': [...read, sameProject],
  'project:list': read,
  'project:create': [admin],
  'project:update': [admin],
  'project:delete': [admin],
  'domain:get': [anyone], // there is one, and every token is of it
  'domain:list': inspect,
  'domain:change': [admin],
  'role:get': inspect,
  'role:list': inspect,
  'role:create': [admin],
  'role:update': [admin],
  'role:delete': [admin],
  'assignment:list': read,
  'grant:read': read,
  'grant:create': [admin],
  'grant:delete': [admin],
  'token:inspect': [...inspect, service, sameUser],
  'token:revoke': [admin, sameUser],
  'application-credential:list': [...inspect, sameUser],
  'application-credential:get': [...inspect, sameUser],
  'application-credential:create': [sameUser],
  'application-credential:delete': [admin, sameUser],
  'service:read': inspect,
  'region:read': [anyone],
  'registered-limit:read': [anyone],
  'registered-limit:change': [admin],
  'limit:list': [anyone], // and then only what concerns the caller's scope
  'limit:get': [...inspect, domainReader, sameProject],
  'limit:change': [admin],
} as const satisfies Record<string, readonly Holder[]>
export type Verb = keyof typeof policy

export const isAllowed = (caller: AuthenticatedCaller, verb: Verb, target: Target = {}): boolean =>
  policy[verb].some((holder) => holder(caller, target))

/** @throws ServiceError `denied` */
export function authorize(caller: AuthenticatedCaller, verb: Verb, target: Target = {}): void {
  if (isAllowed(caller, verb, target)) return
  throw new ServiceError(
    'denied',
    `you are not authorized to perform "${verb}": ask an administrator, or log in with another scope`,
    {
      verb,
    },
  )
}
