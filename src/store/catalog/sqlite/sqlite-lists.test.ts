import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, test } from 'node:test'
import type { ImageQuery, ImageRecord, SortKey } from '../catalog.ts'
import { PlanCache, planImageList, SORTED_ROWS } from '../image-query.ts'
import { DEMO, populate, populationImage } from './population.suite.ts'
import { SqliteCatalog } from './sqlite-catalog.ts'
import { sqliteFlavour } from './sqlite-session.ts'

/** Ten thousand by default, for the patience of those who run all tests; CI sets 100000. The plans are the same. */
const COUNT = Number(process.env.IMPRINT_TEST_IMAGES ?? 10_000)

const folder = await mkdtemp(join(tmpdir(), 'imprint-catalog-'))
const path = join(folder, 'catalog.db')
await (await SqliteCatalog.open({ path })).close()
populate(path, COUNT)
const catalog = await SqliteCatalog.open({ path })
const database = new DatabaseSync(path, { readOnly: true })
after(async () => {
  database.close()
  await catalog.close()
  await rm(folder, { recursive: true })
})

const by = (field: SortKey['field'], direction: SortKey['direction'] = 'asc'): readonly SortKey[] => [
  { field, direction },
  { field: 'createdAt', direction },
  { field: 'id', direction },
]
const one = populationImage(Math.floor(COUNT / 200) * 100 + 7) // the demo project's, golden, half-way down

const lists: Record<string, Partial<ImageQuery>> = {
  newest: {},
  'after a marker': { marker: one.id },
  'by name': { names: [one.name ?? ''] },
  'by several names': { names: ['seed-0000007', 'seed-0000027', 'x'] },
  'by a frequent tag': { tags: ['nightly'] },
  'by a rare tag': { tags: ['golden'] },
  'by a tag after a marker': { tags: ['nightly'], marker: one.id },
  'by property': { properties: { os_distro: 'alpine' } },
  'by a property that one image has': { properties: { build_id: 'b7' } },
  'by two properties and a tag': { properties: { os_distro: 'alpine', hw_disk_bus: 'virtio' }, tags: ['nightly'] },
  'by size': { sort: by('size') },
  'by size, largest first, after a marker': { sort: by('size', 'desc'), marker: one.id },
  'by name, after a marker': { sort: by('name'), marker: one.id },
  'by change': { sort: by('updatedAt', 'desc') },
  'by size among those with a property': { sort: by('size'), properties: { os_distro: 'alpine' } },
  'by size range': { sizeMin: 5_000, sizeMax: 80_000 },
  'by time of creation': { times: [{ field: 'createdAt', op: 'lt', value: one.createdAt }] },
  'by time of change': { times: [{ field: 'updatedAt', op: 'gte', value: one.createdAt }] },
  'public ones': { visibility: 'public' },
  'private ones': { visibility: 'private' },
  'shared ones': { visibility: 'shared' },
  'all visible ones': { visibility: 'all' },
  'memberships of every status': { memberStatus: 'all', visibility: 'shared' },
  'by id': { ids: [one.id, populationImage(7).id] },
  'by checksum': { checksum: one.checksum ?? '' },
  'by hash': { hashValue: one.hashValue ?? '' },
  'by status': { statuses: ['active'] },
  'by a status that none has': { statuses: ['queued'] },
  'by disk format': { diskFormats: ['vmdk'] },
  'by container format': { containerFormats: ['bare'] },
  'by owner': { owner: DEMO },
  'hidden ones': { hidden: true },
  'deleted ones': { deleted: true },
  'protected ones': { protected: true },
}
const viewers: Record<string, ImageQuery['viewer']> = {
  'a member': { projectId: DEMO },
  'an administrator': { all: true },
  'an administrator in a project': { all: true, projectId: DEMO },
}

for (const [who, viewer] of Object.entries(viewers)) {
  for (const [what, part] of Object.entries(lists)) {
    test(`${who} lists ${what} from indexes`, async () => {
      const query: ImageQuery = { viewer, limit: 25, ...part }
      const { steps, sorted } = await explained(query)
      for (const step of steps) {
        assert.doesNotMatch(step, /^SCAN (?!page|part|\(subquery)/, `walks a table or a whole index:\n${steps.join('\n')}`)
        assert.doesNotMatch(step, /AUTOMATIC/, `makes an index for itself:\n${steps.join('\n')}`)
      }
      assert.ok(sorted <= SORTED_ROWS, `sorts ${sorted} rows:\n${steps.join('\n')}`)
      const listed = await catalog.images.list(query)
      const all = await catalog.images.list({ ...query, limit: 10_000 })
      assert.deepEqual(listed, all.slice(0, 25))
    })
  }
}

for (const field of [
  'status',
  'visibility',
  'owner',
  'protected',
  'diskFormat',
  'containerFormat',
  'minDisk',
  'minRam',
  'virtualSize',
  'checksum',
  'hashAlgo',
  'hashValue',
  'id',
] as const) {
  test(`an administrator sorts by ${field} from an index`, async () => {
    const { steps, sorted } = await explained({ viewer: { all: true }, limit: 25, sort: by(field) })
    assert.equal(sorted, 0, steps.join('\n'))
    assert.match(steps[0] ?? '', field === 'id' ? /images_by_id/ : /SEARCH i USING/)
  })
}

test('a list is the same whether its filters find much or little', async () => {
  const cache = new PlanCache(sqliteFlavour)
  const orders = [undefined, by('size', 'desc'), by('status'), by('updatedAt')]
  for (const viewer of Object.values(viewers)) {
    for (const part of Object.values(lists)) {
      for (const sort of orders) {
        const query: ImageQuery = { viewer, limit: 25, ...(sort && { sort }), ...part }
        const marker = query.marker === undefined ? undefined : await catalog.images.get(query.marker)
        const wanted = (await catalog.images.list(query)).map(({ id }) => id)
        for (const found of [0, SORTED_ROWS]) {
          const plan = await planImageList(query, marker, async () => found)
          assert.ok(plan)
          const { text, parameters } = cache.statement(plan)
          const rows = database.prepare(text).all(...(parameters as string[]))
          assert.deepEqual(
            rows.map(({ record }) => JSON.parse(String(record)).id),
            wanted,
          )
        }
      }
    }
  }
})

/** SQLite's plan, and how many rows at most its temporary B-trees take. */
async function explained(query: ImageQuery): Promise<{ readonly steps: readonly string[]; readonly sorted: number }> {
  const cache = new PlanCache(sqliteFlavour)
  const marker = query.marker === undefined ? undefined : await catalog.images.get(query.marker)
  let counted = 0
  const plan = await planImageList(query, marker as ImageRecord | undefined, async (count) => {
    const { text, parameters } = cache.statement(count)
    counted = Number(database.prepare(text).get(...(parameters as string[]))?.n)
    return counted
  })
  assert.ok(plan)
  const { text, parameters } = cache.statement(plan)
  const steps = database
    .prepare(`EXPLAIN QUERY PLAN ${text}`)
    .all(...(parameters as string[]))
    .map(({ detail }) => String(detail))
  const sorts = steps.some((step) => step.startsWith('USE TEMP B-TREE'))
  return { steps, sorted: sorts ? await rowsWithoutLimit(query) : 0 }
}

/** What a sort would take in: all that the filters find. */
async function rowsWithoutLimit({ marker: _, ...query }: ImageQuery): Promise<number> {
  return (await catalog.images.list({ ...query, limit: SORTED_ROWS + 1 })).length
}
