import type { FastifyInstance, FastifyReply } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { findImage, isImageId } from '../../../images/find-image.ts'
import { STORE_ID } from '../../../images/import/import-image.ts'
import type { ImportRequest } from '../../../images/import/import-request.ts'
import { listTasks, showTask, type TaskQuery, type TaskRecord, taskSortKeys, tasksOfImage } from '../../../images/import/tasks.ts'
import { authorizeService } from '../../../images/policy.ts'
import { callerOf } from '../api.ts'
import { isoTime } from './image-json.ts'
import type { ImageServices } from './image-services.ts'
import { idOf, queryOf } from './images.ts'
import { jsonObjectFrom } from './json-body.ts'
import { queryAgain, withMarker } from './list-query.ts'
import { refuseOtherMethods } from './metadefs.ts'

const DEFAULT_LIMIT = 25
const MAX_LIMIT = 1000

/** `/tasks` for administrators, and the tasks of one image for the project that owns it. */
export function registerTasks(app: FastifyInstance, { ports }: ImageServices): void {
  const exposeHeadRoute = false
  app.get('/images/:id/tasks', { exposeHeadRoute }, async (request, reply) => {
    const caller = callerOf(request)
    const { image } = await findImage(ports.catalog, caller, idOf(request.params), 'show')
    // an audience sees the image; who imported it, and from which URL, is not for them
    const mayRead = caller.isAdmin || (image.owner !== null && image.owner === caller.projectId)
    const tasks = mayRead ? await tasksOfImage(ports.catalog, image.id) : []
    return send(reply, { tasks: tasks.map(taskOfImageView) })
  })
  refuseOtherMethods(app, '/images/:id/tasks', ['GET'])

  app.get('/tasks', { exposeHeadRoute }, async (request, reply) => {
    const caller = callerOf(request)
    authorizeService(caller, 'read-tasks')
    const query = queryOf(request.url)
    const wanted = listFrom(query)
    const tasks = await listTasks(ports.catalog, wanted)
    const last = tasks.length === wanted.limit ? tasks.at(-1) : undefined
    const again = queryAgain(query)
    return send(reply, {
      tasks: tasks.map(taskStubView),
      first: `/v2/tasks${again}`,
      schema: '/v2/schemas/tasks',
      ...(last ? { next: `/v2/tasks${withMarker(again, last.id)}` } : {}),
    })
  })
  app.post('/tasks', async (request) => {
    authorizeService(callerOf(request), 'read-tasks')
    const body = jsonObjectFrom(request.body)
    for (const name of ['type', 'input'])
      if (!Object.hasOwn(body, name)) throw new ServiceError('invalid-request', `a task has a member "${name}"`)
    throw new ServiceError('invalid-request', 'tasks of this type are not taken here: import by POST /v2/images/{id}/import')
  })
  refuseOtherMethods(app, '/tasks', ['GET', 'POST'])

  app.get('/tasks/:id', { exposeHeadRoute }, async (request, reply) => {
    const caller = callerOf(request)
    authorizeService(caller, 'read-tasks')
    return send(reply, taskView(await showTask(ports.catalog, caller, idOf(request.params))))
  })
  app.delete('/tasks/:id', async (request, reply) => {
    authorizeService(callerOf(request), 'read-tasks')
    return reply
      .code(405)
      .header('allow', 'GET')
      .type('text/plain; charset=UTF-8')
      .send('Tasks cannot be deleted: they go by themselves at the time that their expires_at says.')
  })
  refuseOtherMethods(app, '/tasks/:id', ['GET', 'DELETE'])
}

function listFrom(query: URLSearchParams): TaskQuery {
  const refuse = (problem: string): never => {
    throw new ServiceError('invalid-request', problem)
  }
  const last = (name: string) => query.getAll(name).at(-1)
  const [limit = String(DEFAULT_LIMIT), marker, status, type] = [last('limit'), last('marker'), last('status'), last('type')]
  if (!/^\d{1,9}$/.test(limit)) refuse('limit takes a whole number that is not negative')
  if (marker && !isImageId(marker)) refuse('marker takes the id of a task')
  if (status && !/^(pending|processing|success|failure)$/.test(status))
    refuse('status takes pending, processing, success or failure')
  if (type && !/^(import|api_image_import)$/.test(type)) refuse('type takes import or api_image_import')
  const [key = 'created_at', direction = 'desc'] = [last('sort_key'), last('sort_dir')]
  if (direction !== 'asc' && direction !== 'desc') refuse('sort_dir takes asc or desc')
  const sort = taskSortKeys.find((known) => known === key)
  if (!sort) return refuse(`tasks are sorted by ${taskSortKeys.join(', ')}`)
  return {
    limit: Math.min(Number(limit), MAX_LIMIT),
    sort,
    direction: direction === 'asc' ? 'asc' : 'desc',
    ...(marker ? { marker } : {}),
    ...(status ? { status } : {}),
    ...(type ? { type } : {}),
  }
}

const links = (task: TaskRecord) => ({ self: `/v2/tasks/${task.id}`, schema: '/v2/schemas/task' })
const taskStubView = (task: TaskRecord) => ({
  id: task.id,
  type: task.type,
  status: task.status,
  owner: task.owner,
  created_at: isoTime(task.createdAt),
  updated_at: isoTime(task.updatedAt),
  ...links(task),
  ...(task.expiresAt === null ? {} : { expires_at: isoTime(task.expiresAt) }),
})
const taskView = (task: TaskRecord) => ({
  ...taskStubView(task),
  input: inputOf(task),
  message: task.message,
  result: resultOf(task),
  image_id: task.imageId,
  request_id: task.requestId,
  user_id: task.userId,
})
/** Here Glance shows the rows of its database, times included. */
const taskOfImageView = (task: TaskRecord) => ({
  id: task.id,
  type: task.type,
  status: task.status,
  owner: task.owner,
  expires_at: task.expiresAt === null ? null : rowTime(task.expiresAt),
  created_at: rowTime(task.createdAt),
  updated_at: rowTime(task.updatedAt),
  deleted_at: null,
  deleted: false,
  image_id: task.imageId,
  request_id: task.requestId,
  user_id: task.userId,
  input: inputOf(task),
  result: resultOf(task),
  message: task.message,
})

const rowTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}.000000`
const inputOf = ({ imageId, request }: TaskRecord) => ({
  image_id: imageId,
  import_req: importRequestView(request),
  backend: [STORE_ID],
})
const resultOf = ({ imageId, status }: TaskRecord) => (status === 'success' ? { image_id: imageId } : null)
const importRequestView = ({ method, stores, allStores, allStoresMustSucceed }: ImportRequest) => ({
  method: { name: method.name, ...(method.name === 'web-download' ? { uri: method.uri } : {}) },
  ...(stores ? { stores } : {}),
  ...(allStores ? { all_stores: true } : {}),
  ...(allStoresMustSucceed ? {} : { all_stores_must_succeed: false }),
})

const send = (reply: FastifyReply, body: object): FastifyReply =>
  reply.header('content-type', 'application/json').send(JSON.stringify(body))
