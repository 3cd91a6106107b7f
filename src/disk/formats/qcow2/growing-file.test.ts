import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seeded } from '../../../../test/fixtures/disk/disks.ts'
import { GrowingFile } from './growing-file.ts'

const CLUSTER = 65536
const whole = new Uint8Array(CLUSTER)
const small = new Uint8Array(900).fill(1)
const middle = new Uint8Array(50_000).fill(2)

test('every cluster is counted as often as it is used, in files of many refcount blocks', () => {
  const random = seeded(4)
  const file = new GrowingFile(1)
  const clusters: Uint8Array[] = [whole]
  const uses = new Map<number, number>([[0, 1]])
  const used = (offset: number, length: number) => {
    for (let at = Math.floor(offset / CLUSTER); at * CLUSTER < offset + length; at += 1) uses.set(at, (uses.get(at) ?? 0) + 1)
  }
  for (let step = 0; step < 80_000; step += 1) {
    const kind = random()
    if (kind < 0.985) used(file.place(whole), CLUSTER)
    else {
      const bytes = kind < 0.993 ? small : middle
      const at = file.append(bytes)
      used(at, bytes.length)
    }
    clusters.push(...file.ready())
  }
  const end = file.finish([whole, whole])
  clusters.push(...file.ready())
  const table = clusters.slice(end.refcountTableStart, end.refcountTableStart + end.refcountTableClusters)
  assert.equal(clusters.length, end.refcountTableStart + end.refcountTableClusters, 'the table is the end')
  const view = new DataView(Buffer.concat(table).buffer)
  const blocks: number[] = []
  for (let index = 0; view.getBigUint64(index * 8) > 0; index += 1) blocks.push(Number(view.getBigUint64(index * 8)) / CLUSTER)
  assert.equal(blocks.length, Math.ceil(clusters.length / 32768))
  assert.ok(blocks.length > 2)
  const counts = blocks.flatMap((block) =>
    Array.from({ length: 32768 }, (_, index) => Buffer.from(clusters[block]!).readUInt16BE(index * 2)),
  )
  for (let cluster = 0; cluster < clusters.length; cluster += 1) {
    const own = uses.get(cluster) ?? 1 // tables of its own are used once
    if (counts[cluster] !== own) assert.fail(`cluster ${cluster} is counted ${counts[cluster]} times, and used ${own} times`)
  }
  assert.ok(
    counts.slice(clusters.length).every((count) => count === 0),
    'nothing behind the end',
  )
})

test('no more than a few clusters wait', () => {
  const file = new GrowingFile(1)
  let given = 0
  file.append(small)
  for (let step = 0; step < 100; step += 1) {
    file.place(whole)
    given += file.ready().length
    assert.ok(step + 2 - given <= 34, `${step + 2 - given} wait`)
  }
})

test('bytes that go on in the next cluster do so where it is the next', () => {
  const file = new GrowingFile(1)
  assert.equal(file.append(middle), CLUSTER)
  assert.equal(file.append(middle), CLUSTER + 50_000, 'goes on in the second')
  assert.equal(file.place(whole), 3 * CLUSTER)
  assert.equal(file.append(small), 2 * CLUSTER + 34_464, 'there is room left')
  assert.equal(file.append(middle), 4 * CLUSTER, 'the third is not theirs')
  assert.equal(file.ready().length, 3)
})
