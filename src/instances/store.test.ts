import assert from 'node:assert/strict'
import { test } from 'node:test'
import { instanceWorld } from './instance-world.suite.ts'
import { jobs } from './store.ts'

test('a rebuild that was begun before volumes were put back has none to put back', async (t) => {
  const world = await instanceWorld()
  t.after(() => world.close())
  const before = { kind: 'rebuild', wasStopped: false, leaseId: null, isCleared: false }
  await world.catalog.write(({ documents }) => documents.put('instance-job', 'one', before))
  assert.deepEqual(await jobs.get(world.catalog.documents, 'one'), { ...before, reverts: [], partsFrom: null })
})
