import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertExtentsAreTrue, digestOf, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { smallQcow2 } from '../../../../test/fixtures/disk/hostile.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import { qcow2 } from './qcow2.ts'

const skip = lacking('qemu-img')
const MiB = 1024 * 1024

for (const options of ['compat=1.1', 'compat=0.10', 'cluster_size=512', 'extended_l2=on']) {
  for (const parentBytes of [3 * MiB + 512, 5 * MiB]) {
    test(`a difference to a disk of ${parentBytes} bytes is read as qemu-img reads it: ${options}`, { skip }, async (t) => {
      const path = await scratch(t)
      await writeSource(randomDisk(parentBytes, 9, 7), path('base'))
      const create = `qemu-img create -q -f qcow2 -o ${options} -b base -F raw top 5M`
      await run('sh', '-c', `cd ${path('')} && ${create}`)
      const writes = ['write -P 7 100k 70k', 'write -P 8 3M 200k', 'write -c -P 9 1M 64k']
      const zeros = options === 'compat=0.10' ? [] : ['write -z 2M 300k', 'discard 110k 5k']
      const commands = [...writes, ...zeros].flatMap((command) => ['-c', command])
      await run('qemu-io', '-f', 'qcow2', ...commands, path('top'))
      await run('qemu-img', 'convert', '-O', 'raw', path('top'), path('whole'))

      const file = checked(await openFileSource(path('top')), 'file')
      const parent = checked(await openFileSource(path('base')), 'parent')
      assert.deepEqual(await qcow2.audit(file, { parent }), [])
      const disk = checked(await qcow2.open(file, { parent }), 'qcow2')
      const whole = await openFileSource(path('whole'))
      assert.equal(await digestOf(disk), await digestOf(whole))
      assert.equal(await digestOf(disk, 27 * 1024), await digestOf(whole), 'in steps that cross clusters')
      await assertExtentsAreTrue(disk)
      await Promise.all([disk.close(), whole.close()])
    })
  }
}

test('closing a difference closes its parent as well', async () => {
  const named = smallQcow2([8, 8, 0x200], [16, 4, 4], [0x200, 'base'])
  let closed = 0
  const parent = {
    ...memorySource(MiB, []),
    close: async () => {
      closed += 1
    },
  }
  await (await qcow2.open(bytesSource(named), { parent })).close()
  assert.equal(closed, 1)
})

test('a parent is refused where the header names none', async () => {
  const parent = memorySource(MiB, [])
  for (const use of [qcow2.open, qcow2.audit]) {
    await assert.rejects(use(bytesSource(smallQcow2()), { parent }), { code: 'invalid-image', message: /stands alone/ })
  }
})

for (const [name, offset, bytes] of [
  ['without an offset', 0, 4],
  ['without a length', 0x200, 0],
  ['in the header itself', 64, 4],
  ['of 1,024 bytes', 0x200, 1024],
  ['beyond the header cluster', 65530, 11],
  ['far away', 2 ** 40, 11],
] as const) {
  test(`a backing file name ${name} is refused, a parent given or not`, async () => {
    const file = bytesSource(smallQcow2([8, 8, offset], [16, 4, bytes]))
    await assert.rejects(qcow2.open(file), { details: { format: 'qcow2', reason: 'external-reference' } })
    await assert.rejects(qcow2.open(file, { parent: memorySource(MiB, []) }), { message: /1 to 1023 bytes inside the header/ })
  })
}
