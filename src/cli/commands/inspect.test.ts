import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { truncate, writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { writeSource } from '../../../test/fixtures/disk/disks.ts'
import { hostileCases, smallQcow2 } from '../../../test/fixtures/disk/hostile.ts'
import { lacking, run as runTool, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { suggestedFormat } from '../../disk/formats/index.ts'
import { recognise } from '../../disk/formats/recognise/recognise.ts'
import { answer, imprint } from '../disk-file/child.suite.ts'
import { run } from '../run-cli.suite.ts'

const environment = { HOME: '/nonexistent' }

test('a disk is told of: sizes, what is where, partitions and what they hold, snapshots', {
  skip: lacking('qemu-img', 'sfdisk', 'mkfs.ext4'),
}, async (t) => {
  const path = await scratch(t)
  await writeFile(path('disk.raw'), '')
  await truncate(path('disk.raw'), 64 * MiB)
  execFileSync('sfdisk', ['--quiet', path('disk.raw')], {
    input: 'label: gpt\nstart=2048, size=8192, type=uefi, name=boot\nstart=16384, size=65536, name="ro\u202eot"\n',
  })
  await runTool('mkfs.ext4', '-q', '-E', 'offset=8388608', path('disk.raw'), '32M')
  await runTool('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', path('disk.raw'), path('disk.qcow2'))
  await runTool('qemu-img', 'snapshot', '-c', 'before the change', path('disk.qcow2'))
  const said = await answer('inspect', path('disk.qcow2'))
  assert.deepEqual(said.verdict, { accepted: true })
  assert.deepEqual([said.disk.format, said.disk.virtualBytes], ['qcow2', 64 * MiB])
  const map = JSON.parse(await runTool('qemu-img', 'map', '--output=json', path('disk.qcow2')))
  const dataBytes = map.reduce((sum: number, run: { data: boolean; length: number }) => sum + (run.data ? run.length : 0), 0)
  assert.equal(said.disk.allocation.dataBytes, dataBytes)
  assert.equal(said.disk.allocation.shares.length, 64)
  assert.deepEqual(said.facts[1], { name: 'cluster size', value: 65536, unit: 'bytes' })
  assert.deepEqual(
    said.disk.partitions.partitions.map(({ number, offset, length, typeName, holds }: Record<string, unknown>) => [
      number,
      offset,
      length,
      typeName,
      holds,
    ]),
    [
      [1, MiB, 4 * MiB, 'EFI system', []],
      [2, 8 * MiB, 32 * MiB, 'Linux', ['ext']],
    ],
  )
  assert.deepEqual(
    said.disk.snapshots.map(({ name }: { name: string }) => name),
    ['before the change'],
  )
  const people = await imprint(['inspect', path('disk.qcow2')])
  assert.equal(people.code, 0)
  for (const part of [
    /format +qcow2/,
    /cluster size +64 KiB/,
    /lazy refcounts +no/,
    /internal snapshots +1/,
    /disk +64 MiB/,
    /▕.{64}▏/,
    /gpt, sectors of 512/,
    /2 +8\.0 MiB +32 MiB +Linux +ro\\u202eot +ext/,
    /before the change/,
    /✓ safe/,
  ])
    assert.match(people.stdout, part)
})

test('a boot record in the manner of the PC is read with its logical partitions', { skip: lacking('sfdisk') }, async (t) => {
  const path = await scratch(t)
  await writeFile(path('disk.raw'), '')
  await truncate(path('disk.raw'), 64 * MiB)
  execFileSync('sfdisk', ['--quiet', path('disk.raw')], {
    input:
      'label: dos\nstart=2048, size=8192, type=c, bootable\nstart=16384, size=65536, type=5\nstart=18432, size=4096, type=83\nstart=26624, size=8192, type=82\n',
  })
  const { disk } = await answer('inspect', path('disk.raw'))
  const theirs = JSON.parse(await runTool('sfdisk', '--json', path('disk.raw'))).partitiontable.partitions
  assert.deepEqual(
    disk.partitions.partitions.map(({ offset, length, type }: Record<string, number>) => [offset! / 512, length! / 512, type]),
    theirs.map(({ start, size, type }: Record<string, string>) => [start, size, `0x${type!.padStart(2, '0')}`]),
  )
  assert.deepEqual(disk.partitions.notes, [])
})

test('a file that is refused is told of all the same, with its reason and status 1', async (t) => {
  const path = await scratch(t)
  await writeFile(path('bad'), smallQcow2([8, 8, 0x200], [16, 4, 11], [0x200, '/etc/passwd']))
  const said = await imprint(['inspect', path('bad'), '--json'])
  assert.equal(said.code, 1)
  const { verdict, disk, found } = JSON.parse(said.stdout)
  assert.deepEqual([verdict.accepted, verdict.code, verdict.reason, disk], [false, 'invalid-image', 'external-reference', null])
  assert.equal(found[0].name, 'qcow2')
  const people = await imprint(['inspect', path('bad')])
  assert.match(people.stdout, /✗ refused: external-reference\n {2}qcow2: .*backing/)
  assert.match(people.stdout, /--parent/)
})

test('every hostile file of the catalogue is told of, and none that is good is refused', async (t: TestContext) => {
  const path = await scratch(t)
  for (const { id, name, declared, file, expect } of hostileCases()) {
    const isTooLarge = file.size > 2 ** 43 // for a file system
    if (isTooLarge || file.size === 0) continue // whatever made an empty file has failed: it is refused here
    await writeSource(file, path('file'))
    const from = expect === 'ok' || suggestedFormat(await recognise(file)) !== declared ? ['--from', declared] : []
    const said = await run(['inspect', path('file'), '--json', ...from], { environment })
    const what = `${id} ${name}: ${said.err}${said.out.slice(0, 600)}`
    assert.ok([0, 1].includes(said.status), what)
    const { verdict } = said.json
    if (verdict.accepted) assert.equal(expect, 'ok', what)
    else if (expect === 'ok')
      assert.equal(verdict.code, 'unsupported', what) // good, and no driver for it yet
    else if (said.json.found[0]?.kind === 'wrapper')
      assert.match(verdict.reason, /malformed|truncated/, what) // it is looked into
    else assert.ok(expect.includes(verdict.reason), what)
  }
})
