import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { Catalog } from '../../store/catalog/catalog.ts'
import { SqliteCatalog } from '../../store/catalog/sqlite/sqlite-catalog.ts'
import {
  findTask,
  listTasks,
  putTask,
  type TaskQuery,
  type TaskRecord,
  type TaskSortKey,
  taskSortKeys,
  tasksOfImage,
} from './tasks.ts'

let catalog: Catalog
const statuses = ['pending', 'processing', 'success', 'failure'] as const
let tasks: readonly TaskRecord[]

const aTask = (n: number): TaskRecord => ({
  id: randomUUID(),
  type: 'api_image_import',
  status: statuses[n % statuses.length]!,
  owner: 'mine',
  userId: 'u',
  requestId: 'req-test',
  imageId: n % 2 === 0 ? 'even' : 'odd',
  request: { method: { name: 'glance-direct' }, allStores: false, allStoresMustSucceed: true },
  message: '',
  bytes: 0,
  attempts: 1,
  createdAt: 1000 + Math.floor(n / 3), // several at once
  updatedAt: 9000 - (n % 7),
  expiresAt: null,
})

before(async () => {
  catalog = await SqliteCatalog.open({ path: ':memory:' })
  tasks = await catalog.write(async (tx) => {
    const put: TaskRecord[] = []
    for (let n = 0; n < 40; n += 1) put.push(await putTask(tx, aTask(n)))
    return put
  })
})
after(() => catalog.close())

/** The whole list, sorted in one go. */
function inOrder({ sort, direction, status }: Pick<TaskQuery, 'sort' | 'direction' | 'status'>): readonly string[] {
  const value = (task: TaskRecord): readonly (string | number)[] => {
    const by: Record<TaskSortKey, string | number> = {
      id: task.id,
      type: task.type,
      status: task.status,
      created_at: task.createdAt,
      updated_at: task.updatedAt,
      expires_at: task.expiresAt ?? 0,
    }
    return [by[sort], task.createdAt, task.id]
  }
  const compare = (a: TaskRecord, b: TaskRecord): number => {
    const [left, right] = [value(a), value(b)]
    const at = left.findIndex((one, place) => one !== right[place])
    return at < 0 ? 0 : left[at]! < right[at]! ? -1 : 1
  }
  const found = tasks.filter((task) => status === undefined || task.status === status).sort(compare)
  return (direction === 'asc' ? found : found.reverse()).map(({ id }) => id)
}

test('pages of tasks join to the sorted list, in every order', async () => {
  const anyQuery = fc.record(
    {
      sort: fc.constantFrom(...taskSortKeys),
      direction: fc.constantFrom('asc' as const, 'desc' as const),
      status: fc.constantFrom(...statuses),
      limit: fc.integer({ min: 1, max: 15 }),
    },
    { requiredKeys: ['sort', 'direction', 'limit'] },
  )
  await fc.assert(
    fc.asyncProperty(anyQuery, async (query) => {
      const got: string[] = []
      for (let marker: string | undefined; ; ) {
        const page = await listTasks(catalog, { ...query, ...(marker ? { marker } : {}) })
        got.push(...page.map(({ id }) => id))
        marker = page.at(-1)?.id
        if (page.length < query.limit) break
      }
      assert.deepEqual(got, inOrder(query))
    }),
    { numRuns: 60 },
  )
})

test('the usual list reads no more than it answers, however many tasks there are', async () => {
  let read = 0
  const counting: Pick<Catalog, 'images' | 'documents'> = {
    images: catalog.images,
    documents: {
      get: (kind, key) => catalog.documents.get(kind, key),
      async list(kind, query) {
        const found = await catalog.documents.list<never>(kind, query)
        read += found.length
        return found
      },
    },
  }
  const marker = inOrder({ sort: 'created_at', direction: 'desc' })[9]!
  for (const sort of ['created_at', 'type', 'status'] as const) {
    read = 0
    assert.equal((await listTasks(counting, { sort, direction: 'desc', limit: 5, marker })).length, 5)
    assert.ok(read <= 6, `${read} read for 5 and the marker`)
  }
})

test('a task changes its place by no change of it, and is found by its id', async () => {
  const [task] = tasks
  const before = inOrder({ sort: 'created_at', direction: 'asc' })
  await catalog.write((tx) => putTask(tx, { ...task!, message: 'on its way' }))
  assert.equal((await findTask(catalog, task!.id))?.message, 'on its way')
  const listed = await listTasks(catalog, { sort: 'created_at', direction: 'asc', limit: 100 })
  assert.deepEqual(
    listed.map(({ id }) => id),
    before,
  )
  assert.deepEqual((await tasksOfImage(catalog, 'odd')).length, 20)
})

test('a marker that is no task is refused, and a type that is not served has none', async () => {
  const query = { sort: 'created_at', direction: 'desc', limit: 5 } as const
  await assert.rejects(listTasks(catalog, { ...query, marker: randomUUID() }), { code: 'invalid-request' })
  assert.deepEqual(await listTasks(catalog, { ...query, type: 'import' }), [])
})
