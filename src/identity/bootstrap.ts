import type { DocumentReader, DocumentWriter } from '../store/catalog/catalog.ts'
import { readablePassword } from './passwords.ts'
import type { Ports } from './ports.ts'
import { newId, type ProjectRecord, type Scope, type UserRecord } from './records.ts'
import { assignments, builtInRoles, limitSubject, projects, registeredLimits, roles, tokens, users } from './store.ts'

export type DefaultLimits = Readonly<Record<string, Readonly<Record<string, number>>>>

export interface BootstrapOptions {
  /** For the administrator, on the first start; one is made up where absent. */
  readonly password?: string
  /** Gives the administrator a new password, enables the account and restores its roles: for a lock that lost its key. */
  readonly reset?: boolean
  /** Limits that stand for every project, by type of service, then resource; those that exist already are left as they are. */
  readonly defaultLimits?: DefaultLimits
}
export interface BootstrapResult {
  /** Whether an administrator was made or reset now. */
  readonly created: boolean
  readonly userName: string
  readonly projectName: string
  /** The made-up password: shown here and never again. */
  readonly password: string | null
}

const ADMINISTRATOR = 'admin'
interface Marker {
  readonly userId: string
  readonly projectId: string
}

/**
 * Makes what a service needs before anybody can log in: the three roles, the limits, and on the first start the project and user
 * `admin` with role admin on that project and the system. Safe to call at every start: an administrator who was since
 * renamed, disabled or given another password stays so.
 */
export async function bootstrap(ports: Ports, options: BootstrapOptions = {}): Promise<BootstrapResult> {
  const { catalog, passwords, now } = ports
  const marker = (await catalog.documents.get<Marker>('identity-state', 'bootstrap'))?.body
  const makes = !marker || options.reset === true
  const password = options.password ?? readablePassword()
  const passwordHash = makes ? await passwords.hash(password) : null

  return catalog.write(async ({ documents }) => {
    for (const { id, name } of builtInRoles) {
      if (!(await roles.get(documents, id))) await roles.put(documents, { id, name, description: null, immutable: true })
    }
    await registerLimits(documents, ports, options.defaultLimits ?? {})
    if (passwordHash === null) return { created: false, ...(await namesOf(documents, marker)), password: null }

    const project =
      (marker && (await projects.get(documents, marker.projectId))) ??
      (await projects.byName(documents, ADMINISTRATOR)) ??
      newProject(now())
    const user =
      (marker && (await users.get(documents, marker.userId))) ?? (await users.byName(documents, ADMINISTRATOR)) ?? newUser(now())
    await projects.put(documents, { ...project, enabled: true })
    await users.put(documents, { ...user, enabled: true, defaultProjectId: user.defaultProjectId ?? project.id, passwordHash })
    await tokens.revokeOfUser(documents, user.id)
    const scopes: Scope[] = [{ kind: 'project', projectId: project.id }, { kind: 'system' }]
    for (const scope of scopes) await assignments.put(documents, { userId: user.id, scope, roleId: builtInRoles[0].id })
    await documents.put<Marker>('identity-state', 'bootstrap', { userId: user.id, projectId: project.id })
    return {
      created: true,
      userName: user.name,
      projectName: project.name,
      password: options.password === undefined ? password : null,
    }
  })
}

const newProject = (createdAt: number): ProjectRecord => ({
  id: newId(),
  name: ADMINISTRATOR,
  enabled: true,
  description: 'The project of the first administrator.',
  tags: [],
  createdAt,
  extra: {},
})

const newUser = (createdAt: number): UserRecord => ({
  id: newId(),
  name: ADMINISTRATOR,
  enabled: true,
  description: null,
  defaultProjectId: null,
  passwordHash: null,
  createdAt,
  extra: {},
})

async function namesOf(docs: DocumentReader, marker: Marker | undefined): Promise<{ userName: string; projectName: string }> {
  const user = marker && (await users.get(docs, marker.userId))
  const project = marker && (await projects.get(docs, marker.projectId))
  return { userName: user?.name ?? ADMINISTRATOR, projectName: project?.name ?? ADMINISTRATOR }
}

async function registerLimits(
  docs: DocumentReader & DocumentWriter,
  { services, region }: Ports,
  defaults: DefaultLimits,
): Promise<void> {
  for (const { id: serviceId, type } of services) {
    for (const [resourceName, defaultLimit] of Object.entries(defaults[type] ?? {})) {
      const subject = { serviceId, regionId: region, resourceName }
      if (await registeredLimits.bySubject(docs, limitSubject(subject))) continue
      await registeredLimits.put(docs, { id: newId(), ...subject, defaultLimit, description: null })
    }
  }
}
