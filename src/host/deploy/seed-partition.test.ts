import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { lacking, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { bytesSource } from '../../disk/block/memory-source.ts'
import type { ImageDisk } from './image-disk.ts'
import { seedPatches } from './seed-partition.ts'

const skip = lacking('sfdisk', 'blkid')
const USER_DATA = Buffer.from('#cloud-config\npassword: x\n')
const imageOf = (bytes: Uint8Array): ImageDisk => ({ ...bytesSource(bytes), chunkBytes: 65_536, wanted: async () => [] })

/** A disk as `sfdisk` partitions it. */
async function partitioned(t: TestContext, mib: number, table: string) {
  const path = await scratch(t)
  writeFileSync(path('image'), '')
  truncateSync(path('image'), mib * MiB)
  execFileSync('sfdisk', ['--quiet', path('image')], { input: table, stdio: ['pipe', 'ignore', 'pipe'] })
  return { path, bytes: readFileSync(path('image')) }
}
/** What `sfdisk` says of the disk that the patches make. */
async function patched(path: (name: string) => string, bytes: Uint8Array, diskMib: number) {
  const disk = Buffer.alloc(diskMib * MiB)
  disk.set(bytes)
  const patches = await seedPatches(imageOf(bytes), disk.length, 'an-image', USER_DATA)
  for (const [index, { offset, bytes: piece }] of patches.entries()) {
    const before = patches[index - 1]
    assert.ok(!before || before.offset + before.bytes.length <= offset, 'they do not overlap')
    disk.set(piece, offset)
  }
  writeFileSync(path('disk'), disk)
  const told = JSON.parse(execFileSync('sfdisk', ['--json', path('disk')], { encoding: 'utf8' }))
  return { disk, patches, table: told.partitiontable as { partitions: { start: number; size: number; name?: string }[] } }
}

for (const diskMib of [16, 20, 64]) {
  test(`on a disk of ${diskMib} MiB cloud-init's disc lies in a partition at the end; the others stay`, { skip }, async (t) => {
    const { path, bytes } = await partitioned(t, 16, 'label: gpt\nstart=2048, size=8192, name=root\n')
    const { disk, patches, table } = await patched(path, bytes, diskMib)
    const verified = execFileSync('sfdisk', ['--verify', path('disk')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
    assert.match(verified, /No errors detected/)
    const [root, seed, ...others] = table.partitions
    assert.deepEqual([root!.start, root!.size, root!.name, others], [2048, 8192, 'root', []])
    assert.equal(seed!.name, 'cidata')
    assert.equal(seed!.start % 2048, 0)
    const probe = ['--probe', '--offset', String(seed!.start * 512), '--size', String(seed!.size * 512), path('disk')]
    assert.match(execFileSync('blkid', probe, { encoding: 'utf8' }), /LABEL="cidata".*TYPE="iso9660"/)
    const disc = disk.subarray(seed!.start * 512, (seed!.start + seed!.size) * 512)
    assert.ok(disc.includes(USER_DATA) && disc.includes('{"instance-id":"imprint-'))
    assert.deepEqual(await seedPatches(imageOf(bytes), disk.length, 'an-image', USER_DATA), patches, 'the same at every run')
  })
}

const refused: readonly [string, string, string, RegExp][] = [
  ['no GPT', 'label: dos\nstart=2048, size=8192\n', 'unsupported', /no GUID partition table/],
  ['a partition up to the end', 'label: gpt\nstart=2048, size=30687\n', 'too-large', /no room at the end of the disk/],
]
for (const [what, layout, code, says] of refused) {
  test(`an image with ${what} is refused`, { skip }, async (t) => {
    const { path, bytes } = await partitioned(t, 16, layout)
    await assert.rejects(patched(path, bytes, 16), { code, message: says })
  })
}
