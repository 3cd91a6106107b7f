import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkMemory } from './chunk-memory.ts'

const CHUNK = 4096

async function filled(memory: ChunkMemory, key: string): Promise<void> {
  const [place] = await memory.take(1)
  new Uint8Array(memory.memory, memory.offsetOf(place!), CHUNK).fill(Number(key))
  memory.keep(key, place!, CHUNK)
}

test('a chunk is found as it was put there, until its place is taken for others', async () => {
  const memory = new ChunkMemory(8, CHUNK)
  for (let key = 0; key < 100; key += 1) {
    await filled(memory, String(key))
    for (let there = Math.max(0, key - 7); there <= key; there += 1)
      assert.deepEqual(memory.find(String(there)), new Uint8Array(CHUNK).fill(there))
    if (key >= 8) assert.equal(memory.find(String(key - 8)), undefined)
  }
})

test('a place is never given to two at once; who finds none left waits in turn', async () => {
  const memory = new ChunkMemory(8, CHUNK)
  await filled(memory, '1')
  const [first, second] = [await memory.take(5), await memory.take(3)]
  assert.equal(new Set([...first, ...second]).size, 8)
  const came: string[] = []
  const large = memory.take(4).then((places) => came.push(`large ${places.length}`))
  const small = memory.take(1).then((places) => came.push(`small ${places.length}`))
  memory.giveBack(second)
  await new Promise(setImmediate)
  assert.deepEqual(came, [], 'three are free, and the small one does not overtake')
  memory.giveBack(first)
  await Promise.all([large, small])
  assert.deepEqual(came, ['large 4', 'small 1'])
})

test('a chunk that is kept twice takes one place', async () => {
  const memory = new ChunkMemory(2, CHUNK)
  await filled(memory, '1')
  await filled(memory, '1')
  assert.equal((await memory.take(1)).length, 1)
  assert.ok(memory.find('1'), 'there was a place free')
})
