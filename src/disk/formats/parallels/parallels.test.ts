import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertExtentsAreTrue, digestOf, patterned, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { PLOOP_DATA, smallParallels } from '../../../../test/fixtures/disk/parallels.ts'
import { type Poke, poked } from '../../../../test/fixtures/disk/poked.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import { parallels } from './parallels.ts'

const skip = lacking('qemu-img')
const MiB = 1024 * 1024

for (const options of ['', 'cluster_size=64k', 'cluster_size=4M']) {
  test(`ploop reads what qemu-img reads: ${options || 'as usual'}`, { skip }, async (t) => {
    const path = await scratch(t)
    const how = options === '' ? [] : ['-o', options]
    await writeSource(randomDisk(9 * MiB + 512, 12, 100), path('raw'))
    await run('qemu-img', 'convert', '-O', 'parallels', ...how, path('raw'), path('ploop'))
    await run('qemu-io', '-f', 'parallels', '-c', 'write -P 7 5M 70k', path('ploop'))
    await run('qemu-img', 'convert', '-f', 'parallels', '-O', 'raw', path('ploop'), path('back'))
    const file = checked(await openFileSource(path('ploop')), 'file')
    assert.deepEqual(await parallels.audit(file), [])
    const read = checked(await parallels.open(file), 'ploop')
    const back = await openFileSource(path('back'))
    assert.equal(read.size, back.size)
    assert.equal(await digestOf(read), await digestOf(back))
    assert.equal(await digestOf(read, 27 * 1024), await digestOf(back), 'in steps that cross clusters')
    await assertExtentsAreTrue(read)
    await Promise.all([read.close(), back.close()])
  })
}

test('the older kind, whose BAT counts in sectors and whose clusters have 63, is read as qemu-img reads it', {
  skip,
}, async (t) => {
  const path = await scratch(t)
  const blocks = [1, 0, 64, 127] // sectors from which the data begin, one behind the header
  const image = poked(
    new Uint8Array(190 * 512 - 700),
    true,
    [0, 'WithoutFreeSpace'],
    [16, 4, 2],
    [28, 4, 63],
    [32, 4, 4],
    [36, 8, 4 * 63 - 5],
    ...blocks.map((block, index) => [64 + index * 4, 4, block] as const),
    [512, patterned(190 * 512 - 512 - 700, 5)],
  )
  await writeSource(bytesSource(image), path('ploop'))
  await run('qemu-img', 'convert', '-f', 'parallels', '-O', 'raw', path('ploop'), path('back'))
  const file = checked(bytesSource(image), 'file')
  assert.match((await parallels.audit(file)).join(), /ends inside its last cluster/)
  const disk = checked(await parallels.open(file), 'ploop')
  const back = await openFileSource(path('back'))
  assert.equal(await digestOf(disk), await digestOf(back))
  await assertExtentsAreTrue(disk)
  await back.close()
})

test('a parent, or a snapshot, is refused', async () => {
  const file = bytesSource(smallParallels())
  await assert.rejects(parallels.open(file, { parent: memorySource(MiB, []) }), {
    code: 'invalid-image',
    message: /a parent is given/,
  })
  await assert.rejects(parallels.open(file, { snapshot: '1' }), { code: 'unsupported' })
})

test('a file that was not closed is read with a warning', async () => {
  assert.match((await parallels.audit(bytesSource(smallParallels([44, 4, 0x746f6e59])))).join(), /was not closed/)
})

test('a sparse disk of 16 TiB costs no memory in proportion', async () => {
  const image = smallParallels([28, 4, 2 ** 21], [32, 4, 2 ** 14], [36, 8, 2 ** 35], [48, 4, 0], [64, new Uint8Array(2 ** 16)])
  const disk = checked(await parallels.open(bytesSource(image)), 'ploop')
  assert.equal(disk.size, 2 ** 44)
  assert.deepEqual([...(await disk.read(disk.size - 2, 2))], [0, 0])
  assert.equal((await Array.fromAsync(disk.extents(0, disk.size))).length, 1)
})

const refused: readonly (readonly [name: string, reason: string, ...pokes: readonly Poke[]])[] = [
  ['another magic', 'malformed', [0, 'WithSomeFreeSpac']],
  ...[0, 1, 3].map((version) => [`version ${version}`, 'malformed', [16, 4, version]] as const),
  ...[0, 4_186_129, 2 ** 32 - 1].map((tracks) => [`clusters of ${tracks} sectors`, 'malformed', [28, 4, tracks]] as const),
  ['a BAT of 16 GiB', 'malformed', [32, 4, 2 ** 32 - 1]],
  ['a BAT beyond the end', 'truncated', [32, 4, 100_000]],
  ['more sectors than the BAT has', 'malformed', [36, 8, 33]],
  ['2^52 sectors', 'malformed', [36, 8, 2 ** 52]],
  ['a data area in the BAT', 'malformed', [48, 4, 0], [32, 4, 200], [64, 8, 0], [48, 4, 1]],
  ['a block in the header', 'overlap', [64, 4, 0x01], [48, 4, PLOOP_DATA / 512 + 8]],
  ['a block beyond the end', 'truncated', [64, 4, 2 ** 32 - 1]],
  ['a block used twice', 'overlap', [68, 4, 1]],
]
for (const [name, reason, ...pokes] of refused) {
  test(`a file with ${name} is refused`, async () => {
    const file = bytesSource(smallParallels(...pokes))
    await assert.rejects(parallels.audit(file), (error: { code: string; details: { reason: string } }) => {
      assert.equal(error.details.reason, reason)
      return error.code === 'invalid-image'
    })
  })
}

test('blocks that overlap in part are refused', async () => {
  const file = bytesSource(smallParallels([0, 'WithoutFreeSpace'], [64, 8, 0], [64, 4, 8], [72, 4, 12]))
  await assert.rejects(parallels.audit(file), {
    details: { format: 'ploop', reason: 'overlap', offset: 2 * PLOOP_DATA, hostOffset: 12 * 512 },
  })
})

test('an older file whose size uses more than 32 bits is refused', async () => {
  const file = bytesSource(smallParallels([0, 'WithoutFreeSpace'], [36, 8, 2 ** 32 + 32]))
  await assert.rejects(parallels.open(file), { code: 'invalid-image', message: /more than 32 bits/ })
})
