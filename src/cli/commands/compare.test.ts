import assert from 'node:assert/strict'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { randomDisk, writeSource } from '../../../test/fixtures/disk/disks.ts'
import { smallQcow2 } from '../../../test/fixtures/disk/hostile.ts'
import { lacking, run as runTool, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { imprint } from '../disk-file/child.suite.ts'

const skip = lacking('qemu-img', 'qemu-io')
const DISK_BYTES = 12 * MiB

test('disks are compared by what a machine would read, and the first byte that differs is told', { skip }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 5, 1), path('a.raw'))
  await runTool('qemu-img', 'convert', '-O', 'qcow2', '-c', path('a.raw'), path('a.qcow2'))
  const equal = await imprint(['compare', path('a.raw'), path('a.qcow2'), '--json'])
  assert.deepEqual(JSON.parse(equal.stdout), { equal: true, firstDifference: null, aBytes: DISK_BYTES, bBytes: DISK_BYTES })
  assert.equal(equal.code, 0)
  for (const at of [0, 4 * MiB + 12_345, DISK_BYTES - 1]) {
    const changed = await readFile(path('a.raw'))
    changed[at]! ^= 1
    await writeFile(path('b.raw'), changed)
    for (const [one, other] of [
      ['a.qcow2', 'b.raw'],
      ['b.raw', 'a.qcow2'],
    ] as const) {
      const said = await imprint(['compare', path(one), path(other), '--json'])
      assert.equal(said.code, 1)
      assert.equal(JSON.parse(said.stdout).firstDifference, at)
    }
  }
  const said = await imprint(['compare', path('a.raw'), path('b.raw')])
  assert.match(said.stdout, /^Different: the first byte that differs is 12582911 \(0xbfffff\)/)
})

test('a disk that is longer by zeros is the same, but not strictly', async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 5, 2), path('a.raw'))
  await writeFile(path('b.raw'), await readFile(path('a.raw')))
  await truncate(path('b.raw'), 2 ** 43) // 8 TiB of hole cost nothing
  assert.equal((await imprint(['compare', path('a.raw'), path('b.raw')])).code, 0)
  const strict = await imprint(['compare', path('a.raw'), path('b.raw'), '--strict'])
  assert.equal(strict.code, 1)
  assert.match(strict.stdout, /Different sizes: 12 MiB .* 8\.0 TiB/)
  await writeFile(path('c.raw'), Buffer.concat([await readFile(path('a.raw')), Buffer.alloc(1000), Buffer.of(1)]))
  const longer = await imprint(['compare', path('c.raw'), path('a.raw'), '--json'])
  assert.deepEqual([longer.code, JSON.parse(longer.stdout).firstDifference], [1, DISK_BYTES + 1000])
})

test('what cannot be compared has status 1 or 3 and nothing on standard output', async (t) => {
  const path = await scratch(t)
  await writeFile(path('good.qcow2'), smallQcow2())
  await writeFile(path('bad.qcow2'), smallQcow2([20, 4, 63]))
  const bad = await imprint(['compare', path('good.qcow2'), path('bad.qcow2')])
  assert.deepEqual([bad.code, bad.stdout], [1, ''])
  assert.match(bad.stderr, /cluster_bits/)
  assert.equal((await imprint(['compare', path('good.qcow2'), path('absent')])).code, 3)
  assert.equal((await imprint(['compare', path('good.qcow2'), path('good.qcow2'), '--from-b', 'raw'])).code, 1)
})

test('a difference is compared with what became of it', { skip }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 5, 3), path('base.raw'))
  await runTool('sh', '-c', `cd ${path('')} && qemu-img create -q -f qcow2 -b base.raw -F raw child.qcow2`)
  await runTool('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 3M 70k', path('child.qcow2'))
  await runTool('qemu-img', 'convert', '-O', 'raw', path('child.qcow2'), path('whole.raw'))
  const [child, whole, base] = [path('child.qcow2'), path('whole.raw'), path('base.raw')]
  assert.equal((await imprint(['compare', child, whole, '--parent-a', base])).code, 0)
  assert.equal((await imprint(['compare', whole, child, '--parent-b', base])).code, 0)
  const told = JSON.parse((await imprint(['compare', child, base, '--parent-a', base, '--json'])).stdout)
  assert.ok(told.firstDifference >= 3 * MiB && told.firstDifference < 3 * MiB + 70 * 1024)
  const alone = await imprint(['compare', child, whole])
  assert.deepEqual([alone.code, alone.stdout], [1, ''])
  assert.match(alone.stderr, /--parent-a or --parent-b/)
})

const withoutLoops = process.getuid?.() === 0 ? lacking('losetup') : 'needs root'
test('a block device is a disk like any other', { skip: withoutLoops }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 5, 4), path('disk.raw'))
  const loop = await runTool('losetup', '--find', '--show', '--read-only', path('disk.raw')).catch(() => undefined)
  if (loop === undefined) return t.skip('no loop device')
  const device = loop.trim()
  t.after(() => runTool('losetup', '--detach', device))
  assert.equal((await imprint(['compare', device, path('disk.raw'), '--strict'])).code, 0)
  assert.equal((await imprint(['convert', device, path('disk.qcow2')])).code, 0)
  assert.equal((await imprint(['compare', path('disk.qcow2'), device, '--strict'])).code, 0)
  const { file, disk } = JSON.parse((await imprint(['inspect', device, '--json'])).stdout)
  assert.deepEqual([file.bytes, file.allocatedBytes, disk.format], [DISK_BYTES, null, 'raw'])
})
