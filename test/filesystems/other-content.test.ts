import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { readLayout } from '../../src/disk/guest/volumes/volumes.ts'
import { missingTool } from '../peers/command.ts'

const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
const run = (program: string, words: readonly string[], input = '') =>
  execFileSync(program, words, { env, input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] })
const luks = (path: string, ...words: string[]) =>
  run(
    'cryptsetup',
    ['luksFormat', '-q', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000', ...words, path, '-'],
    'a secret',
  )

const RAID_ID = Buffer.from('00112233445566778899aabbccddeeff', 'hex')
/** Linux include/uapi/linux/raid/md_p.h, version 1. */
async function raid1(path: string, sector: number): Promise<void> {
  const block = Buffer.alloc(256)
  block.writeUInt32LE(0xa92b4efc)
  block.writeUInt32LE(1, 4)
  RAID_ID.copy(block, 16)
  block.write('host:store', 32)
  block.writeInt32LE(5, 72)
  block.writeUInt32LE(3, 92)
  block.writeBigUInt64LE(BigInt(sector), 144)
  let sum = 0
  for (let at = 0; at < 256; at += 4) sum += block.readUInt32LE(at)
  block.writeUInt32LE((sum + Math.floor(sum / 2 ** 32)) % 2 ** 32, 216)
  const bytes = await readFile(path)
  block.copy(bytes, sector * 512)
  await writeFile(path, bytes)
}
async function raid090(path: string): Promise<void> {
  const bytes = await readFile(path)
  const at = bytes.length - 65_536
  for (const [word, value] of [
    [0, 0xa92b4efc],
    [2, 90],
    [5, 0x00112233],
    [7, 1],
    [10, 2],
    [13, 0x44556677],
    [14, 0x8899aabb],
    [15, 0xccddeeff],
  ] as const)
    bytes.writeUInt32LE(value, at + word * 4)
  await writeFile(path, bytes)
}

const cases: readonly {
  readonly name: string
  readonly tools: readonly string[]
  readonly note: RegExp
  make(path: string): unknown
}[] = [
  { name: 'LUKS1', tools: ['cryptsetup'], note: /LUKS1, aes-xts-plain64/, make: (path) => luks(path, '--type', 'luks1') },
  {
    name: 'LUKS2',
    tools: ['cryptsetup'],
    note: /LUKS2, aes-cbc-essiv/,
    make: (path) => luks(path, '--type', 'luks2', '--label', 'vault', '--cipher', 'aes-cbc-essiv:sha256'),
  },
  { name: 'swap', tools: ['mkswap'], note: /^$/, make: (path) => run('mkswap', ['-q', '-L', 'pages', path]) },
  {
    name: 'the backing device of a bcache',
    tools: ['make-bcache'],
    note: /backing device/,
    make: (path) => run('make-bcache', ['-B', path]),
  },
  { name: 'a RAID 1.2', tools: [], note: /3 devices of a RAID \(level 5\)/, make: (path) => raid1(path, 8) },
  { name: 'a RAID 1.1', tools: [], note: /level 5/, make: (path) => raid1(path, 0) },
  { name: 'a RAID 1.0', tools: [], note: /level 5/, make: (path) => raid1(path, (48 * MiB) / 512 - 16) },
  { name: 'a RAID 0.90', tools: [], note: /2 devices of a RAID \(level 1\)/, make: raid090 },
]
for (const { name, tools, note, make } of cases) {
  test(`${name} is recognised as blkid does`, { skip: missingTool('blkid', ...tools) }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'imprint-content-'))
    const path = join(folder, 'volume')
    await writeFile(path, '')
    await truncate(path, 48 * MiB)
    await make(path)
    const theirs = Object.fromEntries(
      run('blkid', ['-p', '-o', 'export', path])
        .split('\n')
        .map((line) => line.split('=') as [string, string]),
    )
    const { content } = (await readLayout(bytesSource(await readFile(path)))).volumes[0]!
    await rm(folder, { recursive: true })
    assert.ok(content.kind === 'other', content.kind)
    assert.deepEqual([content.type, content.uuid, content.label], [theirs.TYPE, theirs.UUID, theirs.LABEL ?? ''])
    assert.match(content.note, note)
  })
}

test('a header of LUKS2 whose description is deep, or endless, has no cipher', async () => {
  for (const description of ['['.repeat(12_000), '{"segments":{"0":{"encryption":7}}}', '{"segments":null}', 'null', '']) {
    const volume = Buffer.alloc(MiB)
    volume.write('LUKS\xba\xbe\0\x02', 'latin1')
    volume.write(description, 4096)
    const { content } = (await readLayout(bytesSource(volume))).volumes[0]!
    assert.match(content.kind === 'other' ? content.note : '', /encrypted \(LUKS2\)/)
  }
})
