import assert from 'node:assert/strict'
import { truncate, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { randomDisk, writeSource } from '../../../test/fixtures/disk/disks.ts'
import { smallQcow2 } from '../../../test/fixtures/disk/hostile.ts'
import { lacking, run as runTool, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { answer, imprint } from '../disk-file/child.suite.ts'

const skip = lacking('qemu-img', 'qemu-io')

interface Run {
  readonly start: number
  readonly length: number
  readonly present: boolean
  readonly zero: boolean
  readonly data: boolean
}
/** What both say, touching runs of one kind joined. */
function runsOf(map: readonly Run[]): readonly Run[] {
  const joined: Run[] = []
  for (const { start, length, present, zero, data } of map) {
    const last = joined.at(-1)
    const same = last && last.present === present && last.zero === zero && last.data === data
    if (same) joined[joined.length - 1] = { ...last, length: last.length + length }
    else joined.push({ start, length, present, zero, data })
  }
  return joined
}

test('the map is the one that qemu-img prints', { skip }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(12 * MiB, 7, 4), path('disk.raw'))
  const variants: readonly [name: string, format: string, options: readonly string[]][] = [
    ['raw', 'raw', []],
    ['plain', 'qcow2', []],
    ['zlib', 'qcow2', ['-c']],
    ['small', 'qcow2', ['-o', 'cluster_size=512']],
  ]
  for (const [name, format, options] of variants) {
    await runTool('qemu-img', 'convert', '-f', 'raw', '-O', format, ...options, path('disk.raw'), path(name))
    if (format === 'qcow2') await runTool('qemu-io', '-f', format, '-c', 'write -z 3M 128k', '-c', 'discard 5M 64k', path(name))
    const theirs = JSON.parse(await runTool('qemu-img', 'map', '-f', format, '--output=json', path(name)))
    assert.deepEqual(runsOf(await answer('map', path(name))), runsOf(theirs), name)
  }
})

test('people see runs and their sums; a disk of 8 TiB of nothing is one run', async (t) => {
  const path = await scratch(t)
  await writeFile(path('small.qcow2'), smallQcow2())
  const said = await imprint(['map', path('small.qcow2')])
  assert.match(said.stdout, /start +length +what\n +0 +65536 +64 KiB +data\n +65536 +983040 +960 KiB +hole\n$/)
  assert.match(said.stderr, /data 64 KiB, hole 960 KiB/)
  await writeFile(path('huge.raw'), '')
  await truncate(path('huge.raw'), 2 ** 43)
  assert.deepEqual(await answer('map', path('huge.raw')), [{ start: 0, length: 2 ** 43, present: true, zero: true, data: false }])
})

test('the map of a file that is refused is its reason', async (t) => {
  const path = await scratch(t)
  await writeFile(path('bad'), smallQcow2([8, 8, 0x200], [16, 4, 11], [0x200, '/etc/passwd']))
  const said = await imprint(['map', path('bad')])
  assert.deepEqual([said.code, said.stdout], [1, ''])
  assert.match(said.stderr, /backing/)
})
