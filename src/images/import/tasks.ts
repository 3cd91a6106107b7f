import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { CatalogReader, CatalogWriter, ImageRecord } from '../../store/catalog/catalog.ts'
import type { ImportRequest } from './import-request.ts'

/** What `GET /v2/tasks/{id}` and `GET /v2/images/{id}/tasks` tell of an import. */
export interface TaskRecord {
  readonly id: string
  readonly type: 'api_image_import'
  readonly status: 'pending' | 'processing' | 'success' | 'failure'
  /** The project that asked for it. */
  readonly owner: string | null
  readonly userId: string
  readonly requestId: string
  readonly imageId: string
  readonly request: ImportRequest
  readonly message: string
  /** Bytes taken from the source so far. */
  readonly bytes: number
  /** How often it was begun: a service that was stopped begins it again. */
  readonly attempts: number
  readonly createdAt: number
  readonly updatedAt: number
  /** When the record goes; null while it is not finished. */
  readonly expiresAt: number | null
}

export const TASK_KIND = 'task'
const KEPT_MS = 48 * 3600 * 1000 // after its end, as Glance keeps tasks
const unfinished = { name: 'unfinished', value: 'yes' } as const

export function newTask(caller: Caller, image: ImageRecord, request: ImportRequest, at: number): TaskRecord {
  return {
    id: randomUUID(),
    type: 'api_image_import',
    status: 'pending',
    owner: caller.projectId,
    userId: caller.userId,
    requestId: caller.requestId,
    imageId: image.id,
    request,
    message: '',
    bytes: 0,
    attempts: 0,
    createdAt: at,
    updatedAt: at,
    expiresAt: null,
  }
}

export async function putTask({ documents }: CatalogWriter, task: TaskRecord): Promise<TaskRecord> {
  const isFinished = task.status === 'success' || task.status === 'failure'
  const kept = { ...task, expiresAt: isFinished ? task.updatedAt + KEPT_MS : null }
  await documents.put<TaskRecord>(TASK_KIND, task.id, kept, {
    indexes: { image: task.imageId, owner: task.owner ?? '', ...(isFinished ? {} : { [unfinished.name]: unfinished.value }) },
    ...(kept.expiresAt === null ? {} : { expiresAt: kept.expiresAt }),
  })
  return kept
}

/** Changes a task that is there and not finished; one that is gone or finished stays as it is. */
export async function changeTask(tx: CatalogWriter, id: string, changes: Partial<TaskRecord>): Promise<void> {
  const task = (await tx.documents.get<TaskRecord>(TASK_KIND, id))?.body
  if (task && (task.status === 'pending' || task.status === 'processing')) await putTask(tx, { ...task, ...changes })
}

/** @throws ServiceError `not-found`, for tasks of other projects too */
export async function showTask({ documents }: CatalogReader, caller: Caller, id: string): Promise<TaskRecord> {
  const task = (await documents.get<TaskRecord>(TASK_KIND, id))?.body
  if (task && (caller.isAdmin || (caller.projectId !== null && task.owner === caller.projectId))) return task
  throw new ServiceError('not-found', `there is no task ${JSON.stringify(id.slice(0, 80))}`)
}

/** Oldest first; the newest `MAX_OF_IMAGE`. Whether the caller may see the image was asked before. */
export async function tasksOfImage({ documents }: CatalogReader, imageId: string): Promise<readonly TaskRecord[]> {
  const index = { name: 'image', value: imageId }
  const found = await documents.list<TaskRecord>(TASK_KIND, { index, limit: MAX_OF_IMAGE })
  return found.map(({ body }) => body).sort((a, b) => a.createdAt - b.createdAt)
}
const MAX_OF_IMAGE = 1000

/** Newest first: those of the caller's project, an administrator's of all. At most `MAX_LISTED` are looked at. */
export async function listTasks(
  { documents }: CatalogReader,
  caller: Caller,
  filter: { readonly type?: string; readonly status?: string } = {},
): Promise<readonly TaskRecord[]> {
  const index = caller.isAdmin ? {} : { index: { name: 'owner', value: caller.projectId ?? '' } }
  const found = await documents.list<TaskRecord>(TASK_KIND, { ...index, limit: MAX_LISTED })
  return found
    .map(({ body }) => body)
    .filter(({ type, status }) => (filter.type ?? type) === type && (filter.status ?? status) === status)
    .sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1))
}
const MAX_LISTED = 10_000

export async function unfinishedTasks({ documents }: CatalogReader, limit: number): Promise<readonly TaskRecord[]> {
  return (await documents.list<TaskRecord>(TASK_KIND, { index: unfinished, limit })).map(({ body }) => body)
}

export async function dropExpiredTasks({ documents }: CatalogWriter, now: number): Promise<number> {
  return documents.deleteExpired(TASK_KIND, now)
}
