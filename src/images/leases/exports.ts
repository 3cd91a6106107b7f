import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import type { CatalogReader } from '../../store/catalog/catalog.ts'
import { rankOf } from '../policy.ts'
import { endExpiredLeases, endLease, type LeasePorts, makeLease } from './disk-leases.ts'
import { getLease, hasExpired, type Lease, leasesOfProject, newName, putLease, type StoredLease } from './lease.ts'

/** The disk of an image, lent to a user for a while, over NBD. */
export interface DiskExport {
  readonly id: string
  readonly image: { readonly id: string; readonly name: string | null }
  readonly diskBytes: number
  readonly projectId: string | null
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly expiresAt: number
}
/** Told once: whoever knows the name may read the disk. */
export interface NewDiskExport extends DiskExport {
  readonly name: string
}

export const EXPORT_SECONDS = { default: 3600, most: 30 * 24 * 3600 } as const
/** Of a project at once: a record each, and a row in each list. */
const MAX_EXPORTS = 256
const HOLDER = 'export'

/**
 * `POST /v1/exports`. The export is a grant of its own: nothing that happens to the image afterwards takes it back before its end.
 * @throws ServiceError `not-found`, `denied`, `conflict`, `unsupported`; `over-quota` where the project has too many
 */
export async function createExport(
  ports: LeasePorts,
  caller: Caller,
  imageId: string,
  seconds: number = EXPORT_SECONDS.default,
): Promise<NewDiskExport> {
  const { projectId } = caller
  if (projectId === null) throw new ServiceError('denied', 'an export belongs to a project: ask with a token of one')
  const id = randomUUID()
  const { name, nameHash } = newName()
  const lease = await ports.catalog.write(async (tx) => {
    await makeLease(ports, tx, caller, id, imageId, { projectId, holder: HOLDER, nameHash, seconds })
    const held = await leasesOfProject(tx, projectId, { limit: MAX_EXPORTS + 1 })
    if (held.length > MAX_EXPORTS) {
      const message = `the project has ${MAX_EXPORTS} exports already; end some (imprint export end), or wait until they expire`
      throw new ServiceError('over-quota', message, { limit: MAX_EXPORTS })
    }
    return held.find(({ key }) => key === id)!.body
  })
  failpoint('lease:made')
  return { ...exportOf(id, lease), name }
}

/** Those of the caller's project, in no order that means anything. */
export async function listExports({ catalog, now }: LeasePorts, caller: Caller): Promise<readonly DiskExport[]> {
  if (caller.projectId === null || rankOf(caller) === 'none') return []
  const held = await leasesOfProject(catalog, caller.projectId, { limit: MAX_EXPORTS })
  return held.filter(({ body }) => !hasExpired(body, now())).map(({ key, body }) => exportOf(key, body))
}

/** @throws ServiceError `not-found` */
export async function showExport({ catalog, now }: LeasePorts, caller: Caller, id: string): Promise<DiskExport> {
  return exportOf(id, (await findExport(catalog, caller, id, now())).body)
}

/** Lets it end so many seconds from now, sooner or later than it would have. @throws ServiceError `not-found`, `denied` */
export async function renewExport(
  { catalog, disks, now }: LeasePorts,
  caller: Caller,
  id: string,
  seconds: number = EXPORT_SECONDS.default,
): Promise<DiskExport> {
  const lease = await catalog.write(async (tx) => {
    const found = await findExport(tx, caller, id, now())
    membersOnly(caller)
    const renewed: Lease = { ...found.body, expiresAt: now() + seconds * 1000 }
    await putLease(tx, id, renewed, found.version)
    return renewed
  })
  await disks.changed(lease.nameHash)
  return exportOf(id, lease)
}

/** Cuts off whoever reads it. @throws ServiceError `not-found`, `denied` */
export async function endExport(ports: LeasePorts, caller: Caller, id: string): Promise<void> {
  await findExport(ports.catalog, caller, id, ports.now())
  membersOnly(caller)
  if (!(await endLease(ports, caller, id, (lease) => isVisible(caller, lease)))) throw noSuchExport(id)
}

/** @returns how many had expired */
export const sweepExports = (ports: LeasePorts): Promise<number> => endExpiredLeases(ports, HOLDER)

async function findExport(catalog: CatalogReader, caller: Caller, id: string, now: number): Promise<StoredLease> {
  const found = await getLease(catalog, id)
  if (!found || !isVisible(caller, found) || hasExpired(found.body, now)) throw noSuchExport(id)
  return found
}

/** Leases of the service itself are no exports. */
function isVisible(caller: Caller, { body: { projectId } }: StoredLease): boolean {
  return projectId !== null && rankOf(caller) !== 'none' && (caller.isAdmin || projectId === caller.projectId)
}

function membersOnly(caller: Caller): void {
  if (rankOf(caller) === 'reader') throw new ServiceError('denied', 'exports are renewed and ended with the role "member"')
}

const noSuchExport = (id: string): ServiceError =>
  new ServiceError('not-found', `there is no export ${JSON.stringify(id.slice(0, 80))}, or it has ended`)

function exportOf(id: string, { image, diskBytes, projectId, createdAt, expiresAt }: Lease): DiskExport {
  if (expiresAt === null) throw new Error(`export ${id} has no end`)
  return { id, image: { id: image.id, name: image.name }, diskBytes, projectId, createdAt, expiresAt }
}
