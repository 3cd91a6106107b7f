import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import { authorizeService, isAllowed } from '../policy.ts'
import type { InstancePorts } from '../ports.ts'
import type { FlavorRecord } from '../records.ts'
import { flavors } from '../store.ts'

type Ports = Pick<InstancePorts, 'catalog' | 'now'>

export interface NewFlavor extends Omit<FlavorRecord, 'id' | 'projects' | 'extraSpecs' | 'createdAt'> {
  /** Absent: a UUID. */
  readonly id?: string
}

/** Each list of flavors, and each refused launch, walks over all of them. */
const MAX_FLAVORS = 2000

/** @throws ServiceError `denied`; `conflict` where the id or the name is taken */
export function createFlavor({ catalog, now }: Ports, caller: Caller, wanted: NewFlavor): Promise<FlavorRecord> {
  authorizeService(caller, 'change-flavors')
  const flavor: FlavorRecord = { ...wanted, id: wanted.id ?? randomUUID(), projects: [], extraSpecs: {}, createdAt: now() }
  return catalog.write(async ({ documents }) => {
    if (await flavors.get(documents, flavor.id)) {
      throw new ServiceError('conflict', `Flavor with ID ${flavor.id} already exists.`)
    }
    if (await flavors.byName(documents, flavor.name)) {
      throw new ServiceError('conflict', `Flavor with name ${flavor.name} already exists.`)
    }
    if ((await flavors.list(documents)).length >= MAX_FLAVORS) {
      throw new ServiceError('conflict', `there are ${MAX_FLAVORS} flavors already: delete some first`)
    }
    await flavors.put(documents, flavor)
    return flavor
  })
}

export interface FlavorQuery {
  /** Absent: public ones and those that the project was given. Administrators may ask for the private ones, or for `all`. */
  readonly isPublic?: boolean | 'all'
  readonly minDisk?: number
  readonly minRam?: number
  readonly sort?: { readonly key: FlavorSortKey; readonly direction: 'asc' | 'desc' }
  readonly marker?: string
  readonly limit?: number
}
export const flavorSortKeys = ['id', 'name', 'vcpus', 'ramMiB', 'diskGiB', 'ephemeralGiB', 'swapMiB', 'createdAt'] as const
export type FlavorSortKey = (typeof flavorSortKeys)[number]

/** @throws ServiceError `denied`; `invalid-request` for a marker that is not in the list */
export async function listFlavors(
  { catalog }: Pick<Ports, 'catalog'>,
  caller: Caller,
  query: FlavorQuery,
): Promise<readonly FlavorRecord[]> {
  authorizeService(caller, 'read-flavors')
  const { minDisk = 0, minRam = 0, sort = { key: 'id', direction: 'asc' }, marker, limit } = query
  const wanted = isAllowed(caller, 'read-private-flavors') ? query.isPublic : undefined
  const found = (await flavors.list(catalog.documents)).filter(
    (flavor) =>
      (wanted === undefined ? isOpenTo(caller, flavor) : wanted === 'all' || flavor.isPublic === wanted) &&
      flavor.diskGiB >= minDisk &&
      flavor.ramMiB >= minRam,
  )
  const sign = sort.direction === 'asc' ? 1 : -1
  const sorted = found.sort((a, b) => sign * (compare(a[sort.key], b[sort.key]) || compare(a.id, b.id)))
  const after = marker === undefined ? -1 : sorted.findIndex(({ id }) => id === marker)
  if (marker !== undefined && after < 0) throw new ServiceError('invalid-request', `marker [${marker.slice(0, 80)}] not found`)
  return sorted.slice(after + 1, limit === undefined ? undefined : after + 1 + limit)
}
const compare = (a: string | number, b: string | number): number => (a < b ? -1 : a > b ? 1 : 0)

/** @throws ServiceError `denied`; `not-found`, also for one that the caller may not use */
export async function showFlavor({ catalog }: Pick<Ports, 'catalog'>, caller: Caller, id: string): Promise<FlavorRecord> {
  authorizeService(caller, 'read-flavors')
  return findFlavor(catalog.documents, caller, id)
}

export async function findFlavor(documents: DocumentReader, caller: Caller, id: string): Promise<FlavorRecord> {
  const flavor = await flavors.get(documents, id)
  if (!flavor || !(isAllowed(caller, 'read-private-flavors') || isOpenTo(caller, flavor))) throw noSuchFlavor(id)
  return flavor
}

/** Instances keep what they took from it. @throws ServiceError `denied`, `not-found` */
export function deleteFlavor({ catalog }: Ports, caller: Caller, id: string): Promise<void> {
  authorizeService(caller, 'change-flavors')
  return catalog.write(async ({ documents }) => {
    if (!(await flavors.delete(documents, id))) throw noSuchFlavor(id)
  })
}

/** @throws ServiceError `denied`, `not-found`; what `change` throws */
export function changeFlavor(
  { catalog }: Pick<Ports, 'catalog'>,
  caller: Caller,
  id: string,
  change: (flavor: FlavorRecord) => FlavorRecord,
): Promise<FlavorRecord> {
  authorizeService(caller, 'change-flavors')
  return catalog.write(async ({ documents }) => {
    const flavor = change(await findFlavor(documents, caller, id))
    await flavors.put(documents, flavor)
    return flavor
  })
}

const isOpenTo = ({ projectId }: Caller, flavor: FlavorRecord): boolean =>
  flavor.isPublic || (projectId !== null && flavor.projects.includes(projectId))

export const noSuchFlavor = (id: string): ServiceError =>
  new ServiceError('not-found', `Flavor ${id.slice(0, 80)} could not be found.`)
