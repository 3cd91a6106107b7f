import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { CatalogReader, CatalogWriter, DocumentQuery, DocumentReader, ImageRecord } from '../../store/catalog/catalog.ts'
import type { ImportRequest } from './import-request.ts'

/** What `GET /v2/tasks/{id}` and `GET /v2/images/{id}/tasks` tell of an import. */
export interface TaskRecord {
  readonly id: string
  readonly type: 'api_image_import'
  readonly status: 'pending' | 'processing' | 'success' | 'failure'
  /** The project that asked for it. */
  readonly owner: string | null
  readonly userId: string
  /** Whether an administrator asked for it; absent: no. */
  readonly isAdmin?: boolean
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

const TASK_KIND = 'task'
const KEPT_MS = 48 * 3600 * 1000 // after its end, as Glance keeps tasks
const unfinished = { name: 'unfinished', value: 'yes' } as const

export function newTask(caller: Caller, image: ImageRecord, request: ImportRequest, at: number): TaskRecord {
  return {
    id: randomUUID(),
    type: 'api_image_import',
    status: 'pending',
    owner: caller.projectId,
    userId: caller.userId,
    ...(caller.isAdmin ? { isAdmin: true } : {}),
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

/** Keys of tasks ascend with the time of their creation, so that lists go on after any of them. */
const keyOf = ({ createdAt, id }: Pick<TaskRecord, 'createdAt' | 'id'>): string => `${String(createdAt).padStart(15, '0')}-${id}`

export async function findTask(
  { documents }: { readonly documents: DocumentReader },
  id: string,
): Promise<TaskRecord | undefined> {
  const [found] = await documents.list<TaskRecord>(TASK_KIND, { index: { name: 'id', value: id }, limit: 1 })
  return found?.body
}

export async function putTask({ documents }: CatalogWriter, task: TaskRecord): Promise<TaskRecord> {
  const isFinished = task.status === 'success' || task.status === 'failure'
  const kept = { ...task, expiresAt: isFinished ? task.updatedAt + KEPT_MS : null }
  await documents.put<TaskRecord>(TASK_KIND, keyOf(task), kept, {
    indexes: { image: task.imageId, status: task.status, ...(isFinished ? {} : { [unfinished.name]: unfinished.value }) },
    unique: { id: task.id },
    ...(kept.expiresAt === null ? {} : { expiresAt: kept.expiresAt }),
  })
  return kept
}

/** Changes a task that is there and not finished; one that is gone or finished stays as it is. */
export async function changeTask(tx: CatalogWriter, id: string, changes: Partial<TaskRecord>): Promise<void> {
  const task = await findTask(tx, id)
  if (task && (task.status === 'pending' || task.status === 'processing')) await putTask(tx, { ...task, ...changes })
}

/** @throws ServiceError `not-found`, for tasks of other projects too */
export async function showTask(catalog: CatalogReader, caller: Caller, id: string): Promise<TaskRecord> {
  const task = await findTask(catalog, id)
  if (task && (caller.isAdmin || (caller.projectId !== null && task.owner === caller.projectId))) return task
  throw new ServiceError('not-found', `there is no task ${JSON.stringify(id.slice(0, 80))}`)
}

/** Oldest first; the newest `MAX_OF_IMAGE`. Whether the caller may see the image was asked before. */
export async function tasksOfImage({ documents }: CatalogReader, imageId: string): Promise<readonly TaskRecord[]> {
  const index = { name: 'image', value: imageId }
  const found = await documents.list<TaskRecord>(TASK_KIND, { index, direction: 'desc', limit: MAX_OF_IMAGE })
  return found.map(({ body }) => body).reverse()
}
const MAX_OF_IMAGE = 1000

export const taskSortKeys = ['id', 'type', 'status', 'created_at', 'updated_at', 'expires_at'] as const
export type TaskSortKey = (typeof taskSortKeys)[number]

/** Sorted by `sort`, then time of creation, then id, all in one direction. */
export interface TaskQuery {
  readonly type?: string
  readonly status?: string
  readonly sort: TaskSortKey
  readonly direction: 'asc' | 'desc'
  /** The list goes on after the task of this id. */
  readonly marker?: string
  readonly limit: number
}

/**
 * Tasks of all projects: whether the caller may see them was asked before. By time, type (there is one) and status it reads no
 * more than it answers; by the other keys all of them, a page at a time, and holds no more than it answers and a page.
 * @throws ServiceError `invalid-request` for a marker that is no task
 */
export async function listTasks(catalog: CatalogReader, query: TaskQuery): Promise<readonly TaskRecord[]> {
  const { type, sort } = query
  const marker = query.marker === undefined ? undefined : await findTask(catalog, query.marker)
  if (query.marker !== undefined && !marker) {
    throw new ServiceError('invalid-request', 'there is no task with the id that is given as marker')
  }
  if (type !== undefined && type !== 'api_image_import') return []
  if (sort === 'created_at' || sort === 'type') return tasksInTime(catalog, query, query.status, marker)
  return sort === 'status' ? tasksByStatus(catalog, query, marker) : tasksBy(sort, catalog, query, marker)
}

async function tasksInTime(
  { documents }: CatalogReader,
  { direction, limit }: Pick<TaskQuery, 'direction' | 'limit'>,
  status: string | undefined,
  after: TaskRecord | undefined,
): Promise<readonly TaskRecord[]> {
  const query: DocumentQuery = {
    direction,
    limit,
    ...(status === undefined ? {} : { index: { name: 'status', value: status } }),
    ...(after ? { after: keyOf(after) } : {}),
  }
  return (await documents.list<TaskRecord>(TASK_KIND, query)).map(({ body }) => body)
}

async function tasksByStatus(catalog: CatalogReader, query: TaskQuery, marker: TaskRecord | undefined) {
  const ascending = ['failure', 'pending', 'processing', 'success']
  const inOrder = query.direction === 'asc' ? ascending : ascending.toReversed()
  const found: TaskRecord[] = []
  for (const status of inOrder.slice(marker ? inOrder.indexOf(marker.status) : 0)) {
    if (query.status !== undefined && query.status !== status) continue
    const after = marker?.status === status ? marker : undefined
    found.push(...(await tasksInTime(catalog, { ...query, limit: query.limit - found.length }, status, after)))
    if (found.length >= query.limit) break
  }
  return found
}

const sortValues = {
  id: ({ id }: TaskRecord) => id,
  updated_at: ({ updatedAt }: TaskRecord) => updatedAt,
  expires_at: ({ expiresAt }: TaskRecord) => expiresAt ?? 0,
}
const PAGE = 500

async function tasksBy(
  sort: keyof typeof sortValues,
  catalog: CatalogReader,
  { direction, status, limit }: TaskQuery,
  marker: TaskRecord | undefined,
) {
  const wanted = sortValues[sort]
  const sign = direction === 'asc' ? 1 : -1
  const compare = (a: string | number, b: string | number) => (a < b ? -sign : a > b ? sign : 0)
  const order = (a: TaskRecord, b: TaskRecord) => compare(wanted(a), wanted(b)) || compare(keyOf(a), keyOf(b))
  let best: TaskRecord[] = []
  for (let last: TaskRecord | undefined; ; ) {
    const page = await tasksInTime(catalog, { direction, limit: PAGE }, status, last)
    const beyond = marker ? page.filter((task) => order(marker, task) < 0) : page
    best = [...best, ...beyond].sort(order).slice(0, limit)
    last = page.at(-1)
    if (page.length < PAGE) return best
  }
}

export async function unfinishedTasks({ documents }: CatalogReader, limit: number): Promise<readonly TaskRecord[]> {
  return (await documents.list<TaskRecord>(TASK_KIND, { index: unfinished, limit })).map(({ body }) => body)
}

export async function dropExpiredTasks({ documents }: CatalogWriter, now: number): Promise<number> {
  return documents.deleteExpired(TASK_KIND, now)
}
