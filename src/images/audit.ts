import { randomBytes } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import type { CatalogReader, CatalogWriter, ImageRecord } from '../store/catalog/catalog.ts'

export const AUDIT_KIND = 'audit'

/** Who did what to which image: written in the transaction that does it, so that neither stands without the other. */
export interface AuditRecord {
  readonly at: number
  readonly action: string
  readonly outcome: 'success' | 'failure'
  /** Null: it concerns a disk without an image. */
  readonly imageId: string | null
  /** The project that owns the image. */
  readonly projectId: string | null
  readonly userId: string
  readonly userName: string
  /** The project in whose name the user acted. */
  readonly actingProjectId: string | null
  readonly requestId: string
  /** What else is worth knowing: the member, the reason of a failure … */
  readonly details?: Readonly<Record<string, string | number | boolean | null>>
}

export async function recordAudit(
  { documents }: CatalogWriter,
  caller: Caller,
  action: string,
  image: Pick<ImageRecord, 'owner'> & { readonly id: string | null },
  at: number,
  details?: AuditRecord['details'],
  outcome: AuditRecord['outcome'] = 'success',
): Promise<void> {
  const record: AuditRecord = {
    at,
    action,
    outcome,
    imageId: image.id,
    projectId: image.owner,
    userId: caller.userId,
    userName: caller.userName,
    actingProjectId: caller.projectId,
    requestId: caller.requestId,
    ...(details ? { details } : {}),
  }
  const indexes = { ...(image.id === null ? {} : { image: image.id }), ...(image.owner === null ? {} : { project: image.owner }) }
  await documents.put(AUDIT_KIND, timeKey(at), record, { indexes })
}

let written = 0

/** Keys that ascend with time, and within a millisecond in the order of writing; the random part tells processes apart. */
function timeKey(at: number): string {
  written = (written + 1) % 2 ** 24
  const [time, order] = [at.toString(16).padStart(12, '0'), written.toString(16).padStart(6, '0')]
  return `${time}-${order}${randomBytes(5).toString('hex')}`
}

/** Newest first. */
export async function listAudit(
  { documents }: CatalogReader,
  of: { readonly imageId: string } | { readonly projectId: string },
  page: { readonly after?: string; readonly limit: number },
): Promise<readonly { readonly key: string; readonly record: AuditRecord }[]> {
  const index = 'imageId' in of ? { name: 'image', value: of.imageId } : { name: 'project', value: of.projectId }
  const found = await documents.list<AuditRecord>(AUDIT_KIND, { index, ...page, direction: 'desc' })
  return found.map(({ key, body }) => ({ key, record: body }))
}
