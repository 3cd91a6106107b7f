import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertExtentsAreTrue, digestOf } from '../../../../test/fixtures/disk/disks.ts'
import { QCOW2_DATA, QCOW2_L1, QCOW2_L2, smallQcow2 } from '../../../../test/fixtures/disk/hostile.ts'
import type { Poke } from '../../../../test/fixtures/disk/poked.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { window } from '../../filters/window.ts'
import { qcow2 } from './qcow2.ts'

const skip = lacking('qemu-img')

const kinds = [
  { name: 'version 3', options: 'compat=1.1' },
  { name: 'version 2', options: 'compat=0.10' },
  { name: 'clusters of 512', options: 'cluster_size=512' },
  { name: 'clusters of 2 MiB', options: 'cluster_size=2M' },
  { name: 'subclusters', options: 'extended_l2=on,cluster_size=128k' },
]
for (const { name, options } of kinds) {
  test(`internal snapshots are listed and opened as qemu-img does: ${name}`, { skip }, async (t) => {
    const path = await scratch(t)
    const image = path('qcow2')
    const write = (...commands: string[]) =>
      run('qemu-io', '-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), image)
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, image, '8M')
    await write('write -P 1 0 300k', 'write -P 2 5M 100k', 'write -c -P 21 6M 2M')
    await run('qemu-img', 'snapshot', '-c', 'one', image)
    await write('write -P 3 100k 300k', 'write -z 5M 64k')
    await run('qemu-img', 'snapshot', '-c', 'zwei, mit Umlaut: ü', image)
    if (!options.includes('0.10')) await run('qemu-img', 'resize', '-q', '-f', 'qcow2', image, '11M')
    await write('write -P 4 0 50k', 'write -P 5 7M 64k')
    await run('qemu-img', 'snapshot', '-c', 'three', image)
    await write('write -P 99 0 64k')

    const file = checked(await openFileSource(image), 'file')
    assert.match((await qcow2.audit(file)).join(), /3 internal snapshots/)
    const list = await qcow2.snapshots!(file)
    const told = JSON.parse((await run('qemu-img', 'info', '-U', '--output=json', image)) || '{}').snapshots
    assert.deepEqual(
      list.map(({ id, name, at }) => ({ id, name, at })),
      told.map((each: Record<string, number>) => ({
        id: each.id,
        name: each.name,
        at: Number(each['date-sec']) * 1000 + Math.floor(Number(each['date-nsec']) / 1e6),
      })),
    )
    for (const { id, name, virtualBytes } of list) {
      await run('qemu-img', 'convert', '-f', 'qcow2', '-l', `snapshot.id=${id}`, '-O', 'raw', image, path('then'))
      const then = await openFileSource(path('then'))
      const disk = checked(await qcow2.open(checked(await openFileSource(image), 'file'), { snapshot: id }), 'qcow2')
      assert.equal(disk.size, virtualBytes, name)
      assert.equal(await digestOf(disk), await digestOf(window(0, disk.size)(then)), name) // qemu-img keeps the size of now
      await assertExtentsAreTrue(disk)
      await Promise.all([disk.close(), then.close()])
    }
    await assert.rejects(qcow2.open(file, { snapshot: 'four' }), { code: 'not-found', message: /"four"/ })
    await file.close()
  })
}

/** A file whose only data cluster is a table of one snapshot; its L1 table is a second one behind it. */
const L1_THEN = QCOW2_DATA + 65536
const withSnapshot = (...pokes: readonly Poke[]): Uint8Array =>
  smallQcow2(
    [60, 4, 1],
    [64, 8, QCOW2_DATA],
    [QCOW2_L2, 8, 0],
    [QCOW2_DATA, 8, L1_THEN],
    [QCOW2_DATA + 8, 4, 1],
    [QCOW2_DATA + 12, 2, 1],
    [QCOW2_DATA + 14, 2, 4],
    [QCOW2_DATA + 16, 4, 1_700_000_000],
    [QCOW2_DATA + 20, new Uint8Array(16)],
    [QCOW2_DATA + 36, 4, 16],
    [QCOW2_DATA + 40, 8, 0],
    [QCOW2_DATA + 48, 8, 1024 * 1024],
    [QCOW2_DATA + 56, '7then'],
    [L1_THEN, 8, BigInt(QCOW2_L2) | (1n << 63n)],
    [L1_THEN + 65535, 1, 0],
    ...pokes,
  )

test('a snapshot may share all its tables with the disk', async () => {
  const file = bytesSource(withSnapshot())
  assert.deepEqual(await qcow2.snapshots!(file), [{ id: '7', name: 'then', virtualBytes: 1024 * 1024, at: 1_700_000_000_000 }])
  assert.match((await qcow2.audit(file)).join(), /1 internal snapshots/)
  assert.deepEqual([...(await (await qcow2.open(file, { snapshot: '7' })).read(65535, 2))], [0, 0])
})

const refused: readonly (readonly [name: string, says: RegExp, ...pokes: readonly Poke[]])[] = [
  ['an L1 table that is too small', /too small for its size: 1 of 2/, [QCOW2_DATA + 48, 8, 600 * 1024 * 1024]],
  ['a size that is no multiple of a sector', /multiple of 512/, [QCOW2_DATA + 48, 8, 1000]],
  ['a size of 2^60', /2\^53/, [QCOW2_DATA + 48, 8, 2 ** 60]],
  ['an id of 256 bytes', /its id has 256 bytes/, [QCOW2_DATA + 12, 2, 256]],
  ['a name of 1,024 bytes', /its name has 1024 bytes/, [QCOW2_DATA + 14, 2, 1024]],
  ['1,025 bytes of extra data', /1025 bytes of extra data/, [QCOW2_DATA + 36, 4, 1025]],
  ['an L1 table that is not aligned', /not aligned/, [QCOW2_DATA, 8, L1_THEN + 8]],
  ['an L1 table beyond the end', /beyond the end/, [QCOW2_DATA, 8, 2 ** 40]],
  ['the L1 table of the disk', /L1 table of snapshot 0 uses a cluster/, [QCOW2_DATA, 8, QCOW2_L1]],
  ['its own table as an L2 table', /uses a cluster/, [L1_THEN, 8, QCOW2_DATA]],
  ['its L1 table as an L2 table', /uses a cluster/, [L1_THEN, 8, L1_THEN]],
]
for (const [name, says, ...pokes] of refused) {
  test(`a snapshot with ${name} is refused`, async () => {
    const file = bytesSource(withSnapshot(...pokes))
    await assert.rejects(qcow2.audit(file), { code: 'invalid-image', message: says })
  })
}

test('a snapshot whose name is cut off is refused', async () => {
  const image = withSnapshot([64, 8, L1_THEN], [L1_THEN, 8, 0], [L1_THEN + 14, 2, 200]).subarray(0, L1_THEN + 100)
  await assert.rejects(qcow2.audit(bytesSource(image)), {
    details: { format: 'qcow2', reason: 'truncated', index: 0, at: L1_THEN },
  })
})

test('data of a snapshot that are other data of the disk are refused', async () => {
  const other = L1_THEN + 65536 // the L2 table of the snapshot alone
  const data = other + 65536
  const image = (place: number) =>
    withSnapshot(
      [L1_THEN, 8, other],
      [QCOW2_L2 + 8, 8, BigInt(data) | (1n << 63n)],
      [other + place * 8, 8, data],
      [data + 65535, 1, 1],
    )
  assert.match((await qcow2.audit(bytesSource(image(1)))).join(), /1 internal snapshots/)
  await assert.rejects(qcow2.audit(bytesSource(image(2))), { details: { format: 'qcow2', reason: 'overlap', hostOffset: data } })
})

test('compressed data may be shared with a snapshot at the same place of the disk only', async () => {
  const other = L1_THEN + 65536
  const entry = (1n << 62n) | BigInt(other + 65536)
  const image = (place: number) =>
    withSnapshot([L1_THEN, 8, other], [QCOW2_L2 + 8, 8, entry], [other + place * 8, 8, entry], [other + 131071, 1, 1])
  assert.match((await qcow2.audit(bytesSource(image(1)))).join(), /1 internal snapshots/)
  await assert.rejects(qcow2.audit(bytesSource(image(2))), { message: /same compressed bytes/ })
})
