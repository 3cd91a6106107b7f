import type {
  ApplicationCredentialRecord,
  ProjectRecord,
  RoleRecord,
  TokenRecord,
  UserRecord,
} from '../../../identity/records.ts'
import { DOMAIN } from '../../../identity/records.ts'
import type { LimitRecord, Listed, RegisteredLimitRecord } from '../../../identity/store.ts'
import { isYes, type Query } from './route.ts'

/** How records look to clients: the JSON of Keystone's API v3. */

export const timeText = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}.000000Z`

/** The form in which clients write and read the end of an application credential: UTC without saying so. */
export function microsecondText(ms: number): string {
  const micros = Math.round((ms % 1000) * 1000)
  return `${new Date(Math.trunc(ms)).toISOString().slice(0, 19)}.${String(Math.min(micros, 999_999)).padStart(6, '0')}`
}

export const showUser = (user: UserRecord, base: string) => ({
  ...user.extra,
  id: user.id,
  name: user.name,
  domain_id: DOMAIN.id,
  enabled: user.enabled,
  ...(user.description === null ? {} : { description: user.description }),
  ...(user.defaultProjectId === null ? {} : { default_project_id: user.defaultProjectId }),
  password_expires_at: null,
  options: {},
  links: { self: `${base}/users/${user.id}` },
})

export const showProject = (project: ProjectRecord, base: string) => ({
  ...project.extra,
  id: project.id,
  name: project.name,
  domain_id: DOMAIN.id,
  description: project.description,
  enabled: project.enabled,
  parent_id: DOMAIN.id,
  is_domain: false,
  tags: project.tags,
  options: {},
  links: { self: `${base}/projects/${project.id}` },
})

export const showDomain = (base: string) => ({
  id: DOMAIN.id,
  name: DOMAIN.name,
  description: 'The domain of all users and projects.',
  enabled: true,
  tags: [],
  options: {},
  links: { self: `${base}/domains/${DOMAIN.id}` },
})

export const showRole = (role: RoleRecord, base: string) => ({
  id: role.id,
  name: role.name,
  domain_id: null,
  description: role.description,
  options: role.immutable ? { immutable: true } : {},
  links: { self: `${base}/roles/${role.id}` },
})

export const showApplicationCredential = (
  credential: ApplicationCredentialRecord,
  roles: readonly RoleRecord[],
  base: string,
) => ({
  id: credential.id,
  name: credential.name,
  description: credential.description,
  user_id: credential.userId,
  project_id: credential.projectId,
  system: null,
  roles: roles.map(({ id, name, description, immutable }) => ({
    id,
    name,
    domain_id: null,
    description,
    options: immutable ? { immutable: true } : {},
  })),
  expires_at: credential.expiresAt === null ? null : microsecondText(credential.expiresAt),
  unrestricted: credential.unrestricted,
  links: { self: `${base}/users/${credential.userId}/application_credentials/${credential.id}` },
})

export const showRegisteredLimit = (limit: RegisteredLimitRecord, base: string) => ({
  id: limit.id,
  service_id: limit.serviceId,
  region_id: limit.regionId,
  resource_name: limit.resourceName,
  default_limit: limit.defaultLimit,
  description: limit.description,
  links: { self: `${base}/registered_limits/${limit.id}` },
})

export const showLimit = (limit: LimitRecord, base: string) => ({
  id: limit.id,
  project_id: limit.projectId,
  domain_id: null,
  service_id: limit.serviceId,
  region_id: limit.regionId,
  resource_name: limit.resourceName,
  resource_limit: limit.resourceLimit,
  description: limit.description,
  links: { self: `${base}/limits/${limit.id}` },
})

const domain = { id: DOMAIN.id, name: DOMAIN.name }

/** @param catalog absent where the client asked for none */
export const showToken = (token: TokenRecord, catalog: readonly object[] | undefined) => ({
  methods: token.methods,
  user: { domain, id: token.userId, name: token.userName, password_expires_at: null },
  audit_ids: token.auditIds,
  expires_at: timeText(token.expiresAt),
  issued_at: timeText(token.issuedAt),
  ...showScope(token),
  ...(token.scope.kind === 'none' ? {} : { roles: token.roles, ...(catalog ? { catalog } : {}) }),
  ...(token.applicationCredential
    ? {
        application_credential: {
          id: token.applicationCredential.id,
          name: token.applicationCredential.name,
          restricted: !token.applicationCredential.unrestricted,
        },
      }
    : {}),
})

function showScope({ scope, projectName }: TokenRecord): object {
  switch (scope.kind) {
    case 'project':
      return { project: { domain, id: scope.projectId, name: projectName }, is_domain: false }
    case 'domain':
      return { domain }
    case 'system':
      return { system: { all: true } }
    case 'none':
      return {}
  }
}

/** `links` of a collection: this API has one page. */
export const collection = (name: string, items: readonly object[], self: string, truncated = false) => ({
  [name]: items,
  links: { next: null, self, previous: null },
  ...(truncated ? { truncated: true } : {}),
})

const inexact: Readonly<Record<string, (value: string, wanted: string) => boolean>> = {
  contains: (value, wanted) => value.includes(wanted),
  startswith: (value, wanted) => value.startsWith(wanted),
  endswith: (value, wanted) => value.endsWith(wanted),
  icontains: (value, wanted) => value.toLowerCase().includes(wanted.toLowerCase()),
  istartswith: (value, wanted) => value.toLowerCase().startsWith(wanted.toLowerCase()),
  iendswith: (value, wanted) => value.toLowerCase().endsWith(wanted.toLowerCase()),
}

/** Keeps what answers every filter of the query among `fields`: `name=x`, `enabled=true`, `name__contains=x` …; others are ignored. */
export function filtered<T extends object>(items: readonly T[], query: Query, fields: readonly string[]): readonly T[] {
  const tests: ((item: Record<string, unknown>) => boolean)[] = []
  for (const key of query.names()) {
    const [field = '', operator] = key.split('__', 2)
    const wanted = query.text(key)
    if (wanted === undefined || !fields.includes(field)) continue
    if (operator === undefined) tests.push((item) => equals(item[field], wanted))
    else if (Object.hasOwn(inexact, operator)) {
      const holds = inexact[operator] as (value: string, wanted: string) => boolean
      tests.push((item) => typeof item[field] === 'string' && holds(item[field], wanted))
    }
  }
  return items.filter((item) => tests.every((holds) => holds(item as Record<string, unknown>)))
}

function equals(value: unknown, wanted: string): boolean {
  if (typeof value === 'boolean') return value === isYes(wanted)
  return value === undefined || value === null ? false : String(value).normalize('NFC') === wanted.normalize('NFC')
}

/** A list as it is shown: presented, filtered, with its links. */
export function shownList<R>(
  name: string,
  { items, truncated }: Listed<R>,
  show: (record: R) => object,
  filter: { readonly query: Query; readonly fields: readonly string[] },
  self: string,
): object {
  return collection(name, filtered(items.map(show), filter.query, filter.fields), self, truncated)
}
