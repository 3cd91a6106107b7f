import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertExtentsAreTrue, digestOf, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { type Poke, poked } from '../../../../test/fixtures/disk/poked.ts'
import { QED_CLUSTER, smallQed } from '../../../../test/fixtures/disk/qed.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { qed } from './qed.ts'

const skip = lacking('qemu-img')
const MiB = 1024 * 1024

const opened = async (path: string, given: OpenOptions = {}): Promise<BlockSource> => {
  const file = checked(await openFileSource(path), 'file')
  assert.deepEqual(await qed.audit(file, given), [])
  return checked(await qed.open(file, given), 'qed')
}

for (const options of ['', 'cluster_size=4096,table_size=2', 'cluster_size=4096,table_size=16', 'cluster_size=2M']) {
  test(`qed reads what qemu-img reads: ${options || 'as usual'}`, { skip }, async (t) => {
    const path = await scratch(t)
    const how = options === '' ? [] : ['-o', options]
    await writeSource(randomDisk(9 * MiB + 512, 12, 100), path('raw'))
    await run('qemu-img', 'convert', '-O', 'qed', ...how, path('raw'), path('qed'))
    await run('qemu-io', '-f', 'qed', '-c', 'write -z 1M 300k', '-c', 'write -P 7 5M 70k', path('qed'))
    await run('qemu-img', 'convert', '-f', 'qed', '-O', 'raw', path('qed'), path('back'))
    const read = await opened(path('qed'))
    const back = await openFileSource(path('back'))
    assert.equal(read.size, back.size)
    assert.equal(await digestOf(read), await digestOf(back))
    assert.equal(await digestOf(read, 27 * 1024), await digestOf(back), 'in steps that cross clusters')
    await assertExtentsAreTrue(read)
    await Promise.all([read.close(), back.close()])
  })
}

test('a difference is read over the parent that is given', { skip }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(3 * MiB, 9, 7), path('base'))
  await run('sh', '-c', `cd ${path('')} && qemu-img create -q -f qed -b base -F raw top 5M`)
  await run('qemu-io', '-f', 'qed', '-c', 'write -P 7 100k 70k', '-c', 'write -z 1M 128k', '-c', 'write -P 9 4M 1k', path('top'))
  await run('qemu-img', 'convert', '-f', 'qed', '-O', 'raw', path('top'), path('whole'))
  const alone = await openFileSource(path('top'))
  await assert.rejects(qed.open(alone), { details: { format: 'qed', reason: 'external-reference' } })
  await alone.close()
  const disk = await opened(path('top'), { parent: await openFileSource(path('base')) })
  const whole = await openFileSource(path('whole'))
  assert.equal(await digestOf(disk), await digestOf(whole))
  await assertExtentsAreTrue(disk)
  await Promise.all([disk.close(), whole.close()])
})

test('a parent, or a snapshot, that the file does not have is refused', async () => {
  const file = bytesSource(smallQed())
  await assert.rejects(qed.open(file, { parent: memorySource(MiB, []) }), { code: 'invalid-image', message: /stands alone/ })
  await assert.rejects(qed.open(file, { snapshot: '1' }), { code: 'unsupported', message: /no internal snapshots/ })
})

test('a file that was not closed, or is cut off in its last cluster, is read with a warning', async () => {
  assert.match((await qed.audit(bytesSource(smallQed([16, 4, 2])))).join(), /not closed cleanly/)
  const cut = bytesSource(smallQed().subarray(0, 4 * QED_CLUSTER - 100))
  assert.match((await qed.audit(cut)).join(), /ends inside its last cluster/)
  const disk = checked(await qed.open(cut), 'qed')
  assert.deepEqual([...(await disk.read(QED_CLUSTER - 101, 3))], [1, 0, 0])
  assert.deepEqual(
    (await Array.fromAsync(disk.extents(0, disk.size))).map(({ length, kind }) => [length, kind]),
    [
      [QED_CLUSTER - 100, 'data'],
      [100, 'zero'],
      [QED_CLUSTER, 'hole'],
      [QED_CLUSTER, 'zero'],
      [MiB - 3 * QED_CLUSTER, 'hole'],
    ],
  )
})

test('a sparse disk of 16 TiB costs no memory in proportion', async () => {
  const disk = checked(
    await qed.open(bytesSource(smallQed([4, 4, 65536], [8, 4, 4], [40, 8, 65536], [48, 8, 2 ** 44], [5 * 65536, 1, 0]))),
    'qed',
  )
  assert.equal(disk.size, 2 ** 44)
  assert.deepEqual([...(await disk.read(2 ** 44 - 2, 2))], [0, 0])
  assert.equal((await Array.fromAsync(disk.extents(0, disk.size))).length, 1)
})

const L1 = QED_CLUSTER
const L2 = 2 * QED_CLUSTER
const refused: readonly (readonly [name: string, reason: string, ...pokes: readonly Poke[]])[] = [
  ['another magic', 'malformed', [0, 'QEE\0']],
  ...[0, 2048, 4097, 2 ** 27, 2 ** 31].map((size) => [`cluster_size ${size}`, 'malformed', [4, 4, size]] as const),
  ...[0, 3, 32, 2 ** 31].map((size) => [`table_size ${size}`, 'malformed', [8, 4, size]] as const),
  ['header_size 0', 'malformed', [12, 4, 0]],
  ['header_size 2^32 − 1', 'truncated', [12, 4, 2 ** 32 - 1]],
  ...[3n, 31n, 32n, 63n].map((bit) => [`feature bit ${bit}`, 'unknown-feature', [16, 8, 1n << bit]] as const),
  ['a backing file', 'external-reference', [16, 4, 1], [56, 4, 64], [60, 4, 11], [64, '/etc/passwd']],
  ...[1n, 511n, 2n ** 50n].map((size) => [`image_size ${size}`, 'malformed', [48, 8, size]] as const),
  ['an L1 table that is not aligned', 'malformed', [40, 8, L1 + 8]],
  ['an L1 table in the header', 'malformed', [40, 8, 0]],
  ['an L1 table beyond the end', 'truncated', [40, 8, 2 ** 40]],
  ['an L1 table as L2 table', 'overlap', [L1, 8, L1]],
  ['an L2 table beyond the end', 'truncated', [L1, 8, 2 ** 40]],
  ['an L2 table in the header', 'malformed', [L1, 8, 512]],
  ['an L2 table at 2^63', 'malformed', [L1, 8, 1n << 63n]],
  ['data in the L2 table', 'overlap', [L2, 8, L2]],
  ['data used twice', 'overlap', [L2 + 8, 8, 3 * QED_CLUSTER]],
  ['data beyond the end', 'truncated', [L2, 8, 2 ** 40]],
  ['data that are not aligned', 'malformed', [L2, 8, 3 * QED_CLUSTER + 512]],
]
for (const [name, reason, ...pokes] of refused) {
  test(`a file with ${name} is refused`, async () => {
    await assert.rejects(qed.audit(bytesSource(smallQed(...pokes))), (error: { code: string; details: { reason: string } }) => {
      assert.equal(error.details.reason, reason)
      return error.code === (reason === 'unknown-feature' ? 'unsupported' : 'invalid-image')
    })
  })
}

test('an image_size of 2^53 and more is refused', async () => {
  await assert.rejects(qed.open(bytesSource(poked(smallQed(), true, [48, 8, 2n ** 60n]))), {
    code: 'invalid-image',
    message: /2\^53/,
  })
})
