import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { stack } from '../block/block-source.ts'
import { checked } from '../block/checked.ts'
import { memorySource } from '../block/memory-source.ts'
import { abortable } from './abortable.ts'

test('a source that may be aborted is the source, until it is', async () => {
  const disk = randomDisk(2 ** 20, 8, 5)
  const abort = new AbortController()
  const seen = checked(stack(disk, [abortable(abort.signal)]), 'abortable')
  assert.equal(seen.size, disk.size)
  assert.deepEqual(await seen.read(1000, 100_000), await disk.read(1000, 100_000))
  const extents = await Array.fromAsync(seen.extents(0, disk.size))
  assert.deepEqual(extents, await Array.fromAsync(disk.extents(0, disk.size)))

  const walk = seen.extents(0, disk.size)[Symbol.asyncIterator]()
  await walk.next()
  const reason = new Error('enough')
  abort.abort(reason)
  await assert.rejects(walk.next(), reason)
  await assert.rejects(seen.read(0, 1), reason)
  await seen.close()
})

test('who reads what never has to be waited for hears of the signal all the same', async () => {
  const abort = new AbortController()
  const seen = stack(memorySource(1024, []), [abortable(abort.signal)])
  setImmediate(() => abort.abort())
  await assert.rejects(
    async () => {
      while (true) await seen.read(0, 1)
    },
    { name: 'AbortError' },
  )
})
