import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesSource } from '../disk/block/memory-source.ts'
import { ConvertedFiles } from './converted-files.ts'

function counted() {
  const counts = { opened: 0, closed: 0 }
  const open = async () => {
    counts.opened += 1
    const close = async () => {
      counts.closed += 1
    }
    return { ...bytesSource(Uint8Array.of(counts.opened)), close }
  }
  return { counts, open }
}

test('a file is opened once for all who read it and for those who come soon after', async () => {
  const { counts, open } = counted()
  const files = new ConvertedFiles()
  const readers = await Promise.all([files.get('a', open), files.get('a', open)])
  for (const file of readers) await file.close()
  const again = await files.get('a', open)
  assert.deepEqual([...(await again.read(0, 1))], [1])
  assert.deepEqual(counts, { opened: 1, closed: 0 })
  await again.close()
  await again.close()
  await files.close()
  assert.deepEqual(counts, { opened: 1, closed: 1 })
})

test('those that nobody read for a while are closed, the others are not', async () => {
  let now = 0
  const { counts, open } = counted()
  const files = new ConvertedFiles(() => now)
  const kept = await files.get('kept', open)
  await (await files.get('old', open)).close()
  now = ConvertedFiles.IDLE_MS + 1
  await (await files.get('new', open)).close()
  assert.deepEqual(counts, { opened: 3, closed: 1 })
  await kept.close()
  for (let i = 0; i < 3 * ConvertedFiles.MAX_IDLE; i += 1) await (await files.get(`many-${i}`, open)).close()
  assert.equal(counts.opened - counts.closed, ConvertedFiles.MAX_IDLE)
  await files.close()
  assert.equal(counts.opened, counts.closed)
})

test('a file that cannot be opened is tried anew by the next who asks', async () => {
  const { open } = counted()
  const files = new ConvertedFiles()
  await assert.rejects(files.get('a', () => Promise.reject(new Error('damaged'))))
  await (await files.get('a', open)).close()
  await files.close()
})

test('what is forgotten is closed at once, or when its last reader leaves, and opened anew for the next', async () => {
  const { counts, open } = counted()
  const files = new ConvertedFiles()
  await (await files.get('m1 raw', open)).close()
  const reading = await files.get('m1 qcow2', open)
  await (await files.get('m2 raw', open)).close()
  await files.forget('m1 ')
  assert.deepEqual(counts, { opened: 3, closed: 1 })
  const anew = await files.get('m1 qcow2', open)
  await reading.close()
  assert.deepEqual(counts, { opened: 4, closed: 2 })
  await anew.close()
  await files.close()
  assert.deepEqual(counts, { opened: 4, closed: 4 })
})
