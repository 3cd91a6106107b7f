import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { rankOf } from '../../base/rank.ts'
import { formatBytes } from '../../base/units.ts'
import { openableFormats } from '../../disk/formats/index.ts'
import type { CatalogReader, DocumentReader } from '../../store/catalog/catalog.ts'
import { MAX_SCRATCH_BYTES } from '../../store/scratch/scratch-disks.ts'
import { findImage } from '../find-image.ts'
import { authorizeService } from '../policy.ts'
import { endExpiredLeases, endLease, type LeasePorts, makeBlankLease, makeLease } from './disk-leases.ts'
import { getLease, hasExpired, type Lease, leasesOfProject, lendable, newName, putLease, type StoredLease } from './lease.ts'

export interface ExportPorts extends LeasePorts {
  readonly hostDisk: HostDisk
}
/** The file system on which writable exports are written. */
export interface HostDisk {
  /** Bytes of it that may be promised in all, as it is now. */
  promisable(): Promise<number>
  /** Bytes of it that are promised to whomever, exports among them: asked inside `catalog.write`. */
  promised(documents: DocumentReader): Promise<number>
}

/** A disk that is lent to a user for a while, over NBD. */
export interface DiskExport {
  readonly id: string
  /** Null: a blank disk. */
  readonly image: { readonly id: string; readonly name: string | null } | null
  readonly diskBytes: number
  readonly isWritable: boolean
  readonly projectId: string | null
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly expiresAt: number
}
/** What a user may ask for: the disk of an image, perhaps with what is written to it beside it; or a blank one to write to. */
export type ExportWish = { readonly seconds?: number | undefined } & (
  | { readonly imageId: string; readonly isWritable: boolean }
  | { readonly blankBytes: number }
)
/** Told once: whoever knows the name may read the disk. */
export interface NewDiskExport extends DiskExport {
  readonly name: string
}

export const EXPORT_SECONDS = { default: 3600, most: 30 * 24 * 3600 } as const
/** Of a project at once: a record each, and a row in each list. */
const MAX_EXPORTS = 256
const HOLDER = 'export'

export { MAX_SCRATCH_BYTES }

/**
 * `POST /v1/exports`. The export is a grant of its own: nothing that happens to the image afterwards takes it back before its end.
 * @throws ServiceError `not-found`, `denied`, `conflict`, `unsupported`; `too-large`, `over-quota`; `no-space`
 */
export async function createExport(ports: ExportPorts, caller: Caller, wish: ExportWish): Promise<NewDiskExport> {
  const { projectId } = caller
  if ('blankBytes' in wish) authorizeService(caller, 'create')
  if (projectId === null) throw new ServiceError('denied', 'an export belongs to a project: ask with a token of one')
  const id = randomUUID()
  const { name, nameHash } = newName()
  const terms = { projectId, holder: HOLDER, nameHash, seconds: wish.seconds ?? EXPORT_SECONDS.default }
  const scratchBytes = await scratchBytesOf(ports, caller, wish)
  const promisableBytes = scratchBytes === null ? 0 : await ports.hostDisk.promisable()
  const make = () =>
    ports.catalog.write(async (tx) => {
      if ('blankBytes' in wish) await makeBlankLease(ports, tx, caller, id, wish.blankBytes, terms)
      else await makeLease(ports, tx, caller, id, wish.imageId, { ...terms, isWritable: wish.isWritable })
      const held = await leasesOfProject(tx, projectId, { limit: MAX_EXPORTS + 1 })
      const made = held.find(({ key }) => key === id)!.body
      assertWithinLimits(ports, held, made)
      if (made.isWritable) assertHostHasRoom(promisableBytes, await ports.hostDisk.promised(tx.documents), made)
      return made
    })
  const lease = await (scratchBytes === null ? make() : ports.disks.prepare(id, scratchBytes, make))
  failpoint('lease:made')
  return { ...exportOf(id, lease), name }
}

/** How large a scratch disk it takes; null: nothing is written. What is asked of the image here is asked again with the lease. */
async function scratchBytesOf({ catalog }: LeasePorts, caller: Caller, wish: ExportWish): Promise<number | null> {
  if ('blankBytes' in wish) return wish.blankBytes
  if (!wish.isWritable) return null
  const { image } = await findImage(catalog, caller, wish.imageId, 'download')
  return lendable(image, openableFormats).diskBytes
}

/** Asked of the exports of a project with the new one among them. @throws ServiceError `over-quota` */
function assertWithinLimits({ scratchQuotaBytes: quota }: LeasePorts, held: readonly StoredLease[], made: Lease): void {
  if (held.length > MAX_EXPORTS) {
    const message = `the project has ${MAX_EXPORTS} exports already; end some (imprint export end), or wait until they expire`
    throw new ServiceError('over-quota', message, { limit: MAX_EXPORTS })
  }
  if (!made.isWritable) return
  const bytes = held.reduce((sum, { body }) => sum + (body.isWritable ? body.diskBytes : 0), 0)
  if (quota >= 0 && bytes > quota) {
    const message = `the project may have ${quota} bytes of writable exports and would have ${bytes}; end some (imprint export end), or ask an administrator`
    throw new ServiceError('over-quota', message, { limit: quota, used: bytes - made.diskBytes, wanted: made.diskBytes })
  }
}

/** @param promised with the new one among them @throws ServiceError `no-space` */
function assertHostHasRoom(promisable: number, promised: number, { diskBytes }: Lease): void {
  if (promised <= promisable) return
  const message = `of ${formatBytes(Math.floor(promisable))} that this host can promise to exports, volumes and instances, ${formatBytes(promised - diskBytes)} are, and ${formatBytes(diskBytes)} more do not fit; end some (imprint export end), or ask an administrator`
  throw new ServiceError('no-space', message, { wanted: diskBytes })
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

export async function findExport(catalog: CatalogReader, caller: Caller, id: string, now: number): Promise<StoredLease> {
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

function exportOf(id: string, { image, diskBytes, isWritable, projectId, createdAt, expiresAt }: Lease): DiskExport {
  if (expiresAt === null) throw new Error(`export ${id} has no end`)
  const shown = image && { id: image.id, name: image.name }
  return { id, image: shown, diskBytes, isWritable, projectId, createdAt, expiresAt }
}
