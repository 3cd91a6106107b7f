import { ServiceError } from '../base/errors.ts'
import type { DocumentReader, DocumentWriter } from '../store/catalog/catalog.ts'
import type { AuthenticatedCaller } from './identity.ts'
import { authorize } from './policy.ts'
import type { Ports } from './ports.ts'
import { newId } from './records.ts'
import {
  type LimitRecord,
  type Listed,
  limitSubject,
  limits,
  projects,
  type RegisteredLimitRecord,
  registeredLimits,
} from './store.ts'

/** What the rest of the service asks of limits. */
export interface ProjectLimits {
  /**
   * The project's own limit of the resource (`image_count_total` …), or else the one registered for everybody.
   * Two indexed reads. −1: without limit; undefined: nobody set one.
   */
  of(projectId: string, resourceName: string): Promise<number | undefined>
}

/** @param serviceType of the service whose resources they are: `image`, `compute`, `volumev3` */
export const projectLimits = ({ catalog, services, region }: Ports, serviceType: string): ProjectLimits => ({
  async of(projectId, resourceName) {
    const service = services.find(({ type }) => type === serviceType)
    if (!service) return undefined
    for (const regionId of [region, null]) {
      const subject = limitSubject({ serviceId: service.id, regionId, resourceName })
      const own = await limits.bySubject(catalog.documents, projectId, subject)
      if (own) return own.resourceLimit
      const registered = await registeredLimits.bySubject(catalog.documents, subject)
      if (registered) return registered.defaultLimit
    }
    return undefined
  },
})

// ---------------------------------------------------------------- registered limits

export type NewRegisteredLimit = Omit<RegisteredLimitRecord, 'id'>

export async function listRegisteredLimits(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
): Promise<Listed<RegisteredLimitRecord>> {
  authorize(caller, 'registered-limit:read')
  return registeredLimits.list(catalog.documents)
}

export async function getRegisteredLimit(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  id: string,
): Promise<RegisteredLimitRecord> {
  authorize(caller, 'registered-limit:read')
  return (await registeredLimits.get(catalog.documents, id)) ?? absent('registered limit', id)
}

/** All or none. @throws ServiceError `conflict` where one of them exists */
export function createRegisteredLimits(
  ports: Ports,
  caller: AuthenticatedCaller,
  wanted: readonly NewRegisteredLimit[],
): Promise<readonly RegisteredLimitRecord[]> {
  authorize(caller, 'registered-limit:change')
  return ports.catalog.write(async ({ documents }) => {
    const made: RegisteredLimitRecord[] = []
    for (const limit of wanted) {
      const record = { id: newId(), ...limit }
      await putRegistered(documents, ports, record)
      made.push(record)
    }
    return made
  })
}

export function updateRegisteredLimit(
  ports: Ports,
  caller: AuthenticatedCaller,
  id: string,
  changes: Partial<NewRegisteredLimit>,
): Promise<RegisteredLimitRecord> {
  authorize(caller, 'registered-limit:change')
  return ports.catalog.write(async ({ documents }) => {
    const limit = (await registeredLimits.get(documents, id)) ?? absent('registered limit', id)
    const changed = { ...limit, ...changes }
    if (limitSubject(changed) !== limitSubject(limit)) await requireUnused(documents, limit)
    await putRegistered(documents, ports, changed)
    return changed
  })
}

export async function deleteRegisteredLimit({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<void> {
  authorize(caller, 'registered-limit:change')
  await catalog.write(async ({ documents }) => {
    const limit = (await registeredLimits.get(documents, id)) ?? absent('registered limit', id)
    await requireUnused(documents, limit)
    await registeredLimits.delete(documents, id)
  })
}

async function putRegistered(docs: DocumentReader & DocumentWriter, ports: Ports, limit: RegisteredLimitRecord): Promise<void> {
  requireService(ports, limit)
  const holder = await registeredLimits.bySubject(docs, limitSubject(limit))
  if (holder && holder.id !== limit.id) {
    throw new ServiceError(
      'conflict',
      `there is a registered limit for "${limit.resourceName}" of this service and region: change that one`,
    )
  }
  await registeredLimits.put(docs, limit)
}

async function requireUnused(docs: DocumentReader, limit: RegisteredLimitRecord): Promise<void> {
  const [used] = await limits.ofSubject(docs, limitSubject(limit))
  if (used) {
    throw new ServiceError('denied', `projects have limits of "${limit.resourceName}" of their own: delete those first`, {
      limitId: used.key,
    })
  }
}

// ---------------------------------------------------------------- limits of projects

export type NewLimit = Omit<LimitRecord, 'id'>
export interface LimitQuery {
  readonly projectId?: string
}

/** Those of the caller's project; of every project from the system or the domain, or where an administrator names one. */
export async function listLimits(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  query: LimitQuery,
): Promise<Listed<LimitRecord>> {
  authorize(caller, 'limit:list')
  const wide = caller.systemScope || caller.domainId !== undefined
  const projectId = wide || (caller.isAdmin && query.projectId !== undefined) ? query.projectId : caller.projectId
  if (projectId === null || (!wide && query.projectId !== undefined && query.projectId !== projectId)) {
    return { items: [], truncated: false }
  }
  return projectId === undefined ? limits.list(catalog.documents) : limits.ofProject(catalog.documents, projectId)
}

export async function getLimit({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<LimitRecord> {
  const limit = await limits.get(catalog.documents, id)
  authorize(caller, 'limit:get', { projectId: limit?.projectId })
  return limit ?? absent('limit', id)
}

/** All or none. @throws ServiceError `denied` where nothing is registered to limit; `conflict` where the project has one */
export function createLimits(
  ports: Ports,
  caller: AuthenticatedCaller,
  wanted: readonly NewLimit[],
): Promise<readonly LimitRecord[]> {
  authorize(caller, 'limit:change')
  return ports.catalog.write(async ({ documents }) => {
    const made: LimitRecord[] = []
    for (const limit of wanted) {
      requireService(ports, limit)
      if (!(await projects.get(documents, limit.projectId))) {
        throw new ServiceError('invalid-request', `could not find project "${limit.projectId}": a limit belongs to a project`)
      }
      const subject = limitSubject(limit)
      if (!(await registeredLimits.bySubject(documents, subject))) {
        throw new ServiceError(
          'denied',
          `no limit of "${limit.resourceName}" is registered for this service and region: register one first`,
        )
      }
      if (await limits.bySubject(documents, limit.projectId, subject)) {
        throw new ServiceError('conflict', `project "${limit.projectId}" has a limit of "${limit.resourceName}": change that one`)
      }
      const record = { id: newId(), ...limit }
      await limits.put(documents, record)
      made.push(record)
    }
    return made
  })
}

export function updateLimit(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  id: string,
  changes: { readonly resourceLimit?: number; readonly description?: string | null },
): Promise<LimitRecord> {
  authorize(caller, 'limit:change')
  return catalog.write(async ({ documents }) => {
    const limit = (await limits.get(documents, id)) ?? absent('limit', id)
    const changed = { ...limit, ...changes }
    await limits.put(documents, changed)
    return changed
  })
}

export async function deleteLimit({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<void> {
  authorize(caller, 'limit:change')
  await catalog.write(async ({ documents }) => {
    if (!(await limits.delete(documents, id))) absent('limit', id)
  })
}

function requireService(
  { services, region }: Ports,
  { serviceId, regionId }: { serviceId: string; regionId: string | null },
): void {
  if (!services.some(({ id }) => id === serviceId)) {
    throw new ServiceError('invalid-request', `could not find service "${serviceId}": take the id from the list of services`)
  }
  if (regionId !== null && regionId !== region) {
    throw new ServiceError('invalid-request', `could not find region "${regionId}": this service is in region "${region}"`)
  }
}

function absent(what: string, id: string): never {
  throw new ServiceError('not-found', `could not find ${what} "${id}"`)
}
