import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { patterned, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import { ServiceError } from '../../../base/errors.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { recognise } from './recognise.ts'
import { diskFormats, verifyDeclared } from './verify.ts'

const MiB = 1024 * 1024
const DISK_BYTES = 40 * MiB

const recognised = async (path: string) => {
  const file = checked(await openFileSource(path), 'file')
  try {
    return await recognise(file)
  } finally {
    await file.close()
  }
}

interface Legit {
  readonly name: string
  readonly declared: string
  /** What must be found, in any order. */
  readonly found: readonly string[]
  readonly tools: readonly string[]
  readonly virtualBytes?: number
  make(path: string): Promise<unknown>
}

const converted = (name: string, declared: string, format: string, options = ''): Legit => ({
  name,
  declared,
  found: [declared],
  tools: ['qemu-img'],
  virtualBytes: DISK_BYTES,
  async make(path) {
    await writeSource(randomDisk(DISK_BYTES, 20, 7), `${path}.disk`)
    await run('qemu-img', 'convert', '-O', format, ...(options ? ['-o', options] : []), `${path}.disk`, path)
  },
})

const formatted = (tool: string, found: readonly string[], ...args: readonly string[]): Legit => ({
  name: [tool, ...args].join(' '),
  declared: 'raw',
  found,
  tools: [tool],
  async make(path) {
    const bytes = tool === 'mkfs.xfs' ? 320 * MiB : tool === 'mkfs.btrfs' ? 160 * MiB : DISK_BYTES
    await run('truncate', '-s', String(bytes), path)
    await run(tool, ...args, path)
  },
})

const partitioned = (label: string, found: readonly string[]): Legit => ({
  name: `sfdisk ${label}`,
  declared: 'raw',
  found,
  tools: ['sfdisk'],
  async make(path) {
    await run('truncate', '-s', String(DISK_BYTES), path)
    await writeFile(`${path}.layout`, `label: ${label}\n,10M\n,\n`)
    await run('sh', '-c', `sfdisk -q ${path} < ${path}.layout`)
  },
})

const optical = (name: string, ...args: readonly string[]): Legit => ({
  name,
  declared: 'iso',
  found: ['iso'],
  tools: ['genisoimage'],
  async make(path) {
    await writeFile(`${path}.txt`, 'a file')
    await run('genisoimage', '-quiet', ...args, '-o', path, `${path}.txt`)
  },
})

const legit: readonly Legit[] = [
  converted('qcow2 v3', 'qcow2', 'qcow2'),
  converted('qcow2 v2', 'qcow2', 'qcow2', 'compat=0.10'),
  ...[512, 4096, 65536, 2097152].map((size) => converted(`qcow2, clusters of ${size}`, 'qcow2', 'qcow2', `cluster_size=${size}`)),
  converted('qcow2, preallocated', 'qcow2', 'qcow2', 'preallocation=full'),
  converted('qcow2, subclusters', 'qcow2', 'qcow2', 'extended_l2=on'),
  converted('vmdk, monolithicSparse', 'vmdk', 'vmdk'),
  converted('vmdk, streamOptimized', 'vmdk', 'vmdk', 'subformat=streamOptimized'),
  converted('vmdk, zeroed grains', 'vmdk', 'vmdk', 'zeroed_grain=on'),
  converted('vhd, dynamic', 'vhd', 'vpc', 'force_size=on'),
  converted('vhd, fixed', 'vhd', 'vpc', 'subformat=fixed,force_size=on'),
  converted('vhdx, dynamic', 'vhdx', 'vhdx'),
  converted('vhdx, fixed', 'vhdx', 'vhdx', 'subformat=fixed'),
  converted('vdi, dynamic', 'vdi', 'vdi'),
  converted('vdi, static', 'vdi', 'vdi', 'static=on'),
  converted('ploop', 'ploop', 'parallels'),
  formatted('mkfs.ext4', ['ext'], '-q'),
  formatted('mkfs.ext4', ['ext'], '-q', '-b', '1024'),
  formatted('mkfs.ext2', ['ext'], '-q'),
  formatted('mkfs.xfs', ['xfs'], '-q', '-f'),
  formatted('mkfs.btrfs', ['btrfs'], '-q', '-f'),
  formatted('mkfs.vfat', ['boot-sector', 'fat'], '-F', '12'),
  formatted('mkfs.vfat', ['boot-sector', 'fat'], '-F', '16'),
  formatted('mkfs.vfat', ['boot-sector', 'fat'], '-F', '32'),
  formatted('mkfs.ntfs', ['boot-sector', 'ntfs'], '-q', '-F'),
  formatted('mkswap', ['swap']),
  partitioned('dos', ['mbr']),
  partitioned('gpt', ['mbr', 'gpt']),
  optical('iso'),
  optical('iso with Joliet and Rock Ridge', '-J', '-R'),
  optical('iso with UDF', '-udf'),
  {
    ...optical('isohybrid'),
    found: ['iso', 'mbr'],
    async make(path) {
      await optical('').make(path)
      const file = await (await import('node:fs/promises')).open(path, 'r+')
      await file.write(Uint8Array.of(0x80, 0, 1, 0, 0x17, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0), 0, 16, 446)
      await file.write(Uint8Array.of(0x55, 0xaa), 0, 2, 510)
      await file.close()
    },
  },
  {
    name: 'ext4 with boot code',
    declared: 'raw',
    found: ['boot-sector', 'ext'],
    tools: ['mkfs.ext4'],
    async make(path) {
      await formatted('mkfs.ext4', [], '-q').make(path)
      const file = await (await import('node:fs/promises')).open(path, 'r+')
      await file.write(Uint8Array.of(0xeb, 0x63, 0x90), 0, 3, 0)
      await file.write(Uint8Array.of(0x55, 0xaa), 0, 2, 510)
      await file.close()
    },
  },
]

for (const { name, declared, found, tools, virtualBytes, make } of legit) {
  test(`a legitimate image is recognised and accepted: ${name}`, { skip: lacking(...tools) }, async (t) => {
    const path = (await scratch(t))('image')
    await make(path)
    const recognition = await recognised(path)
    assert.deepEqual(recognition.found.map((each) => each.name).sort(), [...found].sort())
    verifyDeclared(declared, recognition, 'bare')
    if (virtualBytes !== undefined)
      assert.equal(recognition.found.find((each) => each.name === declared)?.virtualBytes, virtualBytes)
    for (const other of diskFormats) {
      if (other === declared) continue
      const isPart = declared === 'raw' && ['ami', 'ari', 'aki'].includes(other)
      if (isPart) verifyDeclared(other, recognition)
      else assert.throws(() => verifyDeclared(other, recognition), { code: 'invalid-image' }, `declared as ${other}`)
    }
  })
}

for (const tool of ['gzip', 'xz', 'zstd', 'bzip2', 'lz4', 'zip', 'tar']) {
  test(`${tool} around a disk is recognised: refused as a bare raw disk, accepted in a container`, {
    skip: lacking(tool),
  }, async (t) => {
    const path = await scratch(t)
    await writeFile(path('disk'), patterned(100_000, 1))
    const toPipe =
      tool === 'tar' ? `tar c -C ${path('')} disk` : tool === 'zip' ? `zip -q - ${path('disk')}` : `${tool} -c ${path('disk')}`
    await run('sh', '-c', `${toPipe} > ${path('packed')}`)
    const recognition = await recognised(path('packed'))
    assert.deepEqual(
      recognition.found.map(({ name, kind }) => [name, kind]),
      [[tool, 'wrapper']],
    )
    assert.throws(() => verifyDeclared('raw', recognition, 'bare'), { code: 'invalid-image', message: /unpack/ })
    assert.throws(() => verifyDeclared('qcow2', recognition, 'bare'), { code: 'invalid-image', message: /unpack/ })
    assert.match(verifyDeclared('raw', recognition).join(), /unpack/)
    verifyDeclared('qcow2', recognition, 'compressed')
    verifyDeclared('ari', recognition, 'ari')
  })
}

test('any bytes at all are no disk format, and pass as raw or as an Amazon part', async () => {
  const recognition = await recognise(bytesSource(patterned(2000, 3)))
  assert.deepEqual(recognition.found, [])
  for (const name of ['raw', 'ami', 'ari', 'aki']) assert.deepEqual(verifyDeclared(name, recognition, 'bare'), [])
  assert.throws(() => verifyDeclared('vhd', recognition, 'bare'), { code: 'invalid-image' })
  assert.deepEqual(verifyDeclared('vhd', recognition, 'ami'), [])
  assert.throws(() => verifyDeclared('floppy', recognition), { code: 'unsupported' })
})

test('recognise answers for any bytes, reads little, and never crashes', async () => {
  const starts = [
    '',
    'QFI\xfb',
    'KDMV',
    'conectix',
    'vhdxfile',
    'LUKS\xba\xbe',
    'WithoutFreeSpace',
    '# Disk DescriptorFile\n',
    'PK\x03\x04',
  ]
  const property = fc.asyncProperty(
    fc.constantFrom(...starts),
    fc.uint8Array({ maxLength: 2000 }),
    fc.nat(400_000),
    fc.constantFrom(...diskFormats),
    async (start, random, padding, declared) => {
      const file = bytesSource(Buffer.concat([Buffer.from(start, 'latin1'), random, Buffer.alloc(padding)]))
      let bytesRead = 0
      const counting = {
        ...file,
        read: (offset: number, length: number) => {
          bytesRead += length
          return file.read(offset, length)
        },
      }
      const recognition = await recognise(checked(counting, 'file'))
      assert.ok(bytesRead < 2 * MiB)
      try {
        verifyDeclared(declared, recognition)
      } catch (error) {
        assert.ok(error instanceof ServiceError, `leaked ${error}`)
      }
    },
  )
  await fc.assert(property, { numRuns: 300 })
})
