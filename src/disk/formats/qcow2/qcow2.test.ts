import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertExtentsAreTrue, digestOf, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { memorySource } from '../../block/memory-source.ts'
import { qcow2 } from './qcow2.ts'
import { wrapDisk } from './wrap.ts'

const KiB = 1024
const MiB = 1024 * KiB
const skip = lacking('qemu-img')

const opened = async (path: string): Promise<BlockSource> => {
  const file = checked(await openFileSource(path), 'file')
  await qcow2.audit(file)
  return checked(await qcow2.open(file), 'qcow2')
}

const clusterSizes = [512, 4 * KiB, 64 * KiB, 2 * MiB]
const variants = [
  ...clusterSizes.map((cluster) => ({ name: `v3, clusters of ${cluster}`, options: `compat=1.1,cluster_size=${cluster}` })),
  { name: 'v2', options: 'compat=0.10' },
  { name: 'v2, clusters of 512', options: 'compat=0.10,cluster_size=512' },
  ...clusterSizes.map((cluster) => ({
    name: `v3 zlib, clusters of ${cluster}`,
    options: `cluster_size=${cluster}`,
    compress: true,
  })),
  ...clusterSizes.map((cluster) => ({
    name: `v3 zstd, clusters of ${cluster}`,
    options: `compression_type=zstd,cluster_size=${cluster}`,
    compress: true,
  })),
  { name: 'v2 zlib', options: 'compat=0.10', compress: true },
  { name: 'subclusters', options: 'extended_l2=on,cluster_size=128k' },
  { name: 'subclusters of one sector', options: 'extended_l2=on,cluster_size=16k' },
  { name: 'subclusters and zlib', options: 'extended_l2=on,cluster_size=128k', compress: true },
  { name: 'refcount_bits=1', options: 'refcount_bits=1' },
  { name: 'refcount_bits=64', options: 'refcount_bits=64' },
  { name: 'lazy_refcounts', options: 'lazy_refcounts=on' },
]
/** Not a multiple of any cluster size. */
const DISK_BYTES = 4 * MiB + 512

for (const { name, options, compress } of variants as readonly { name: string; options: string; compress?: boolean }[]) {
  test(`qcow2 reads what qemu-img reads: ${name}`, { skip }, async (t) => {
    const path = await scratch(t)
    const disk = randomDisk(DISK_BYTES, 12, 100)
    await writeSource(disk, path('raw'))
    await run('qemu-img', 'convert', '-O', 'qcow2', '-o', options, ...(compress ? ['-c'] : []), path('raw'), path('qcow2'))
    await run('qemu-img', 'convert', '-O', 'raw', path('qcow2'), path('back'))
    const read = await opened(path('qcow2'))
    const back = await openFileSource(path('back'))
    assert.equal(read.size, back.size)
    const expected = await digestOf(back)
    assert.equal(await digestOf(read), expected)
    assert.equal(await digestOf(read, 27 * KiB), expected, 'in steps that cross clusters')
    await assertExtentsAreTrue(read)
    await Promise.all([read.close(), back.close()])
  })
}

for (const preallocation of ['off', 'metadata', 'falloc', 'full']) {
  for (const extended of ['off', 'on']) {
    test(`qcow2 reads an image with preallocation=${preallocation}, extended_l2=${extended}, written to in places`, {
      skip,
    }, async (t) => {
      const path = await scratch(t)
      const options = `preallocation=${preallocation},extended_l2=${extended}`
      await run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, path('qcow2'), '5000000')
      await run(
        'qemu-io',
        ...[
          '-f',
          'qcow2',
          '-c',
          'write -P 7 100k 70k',
          '-c',
          'write -z 200k 100k',
          '-c',
          'write -P 9 4M 1k',
          '-c',
          'discard 110k 5k',
        ],
        path('qcow2'),
      )
      await run('qemu-img', 'convert', '-O', 'raw', path('qcow2'), path('back'))
      const read = await opened(path('qcow2'))
      const back = await openFileSource(path('back'))
      assert.equal(read.size, back.size)
      assert.equal(await digestOf(read), await digestOf(back))
      await assertExtentsAreTrue(read)
      await Promise.all([read.close(), back.close()])
    })
  }
}

test('qcow2 shows the active disk of a file with internal snapshots', { skip }, async (t) => {
  const path = await scratch(t)
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', path('qcow2'), '8M')
  for (const [index, name] of ['one', 'two', 'three'].entries()) {
    await run('qemu-io', '-f', 'qcow2', '-c', `write -P ${index + 1} ${index * 100}k 300k`, path('qcow2'))
    await run('qemu-img', 'snapshot', '-c', name, path('qcow2'))
  }
  await run('qemu-io', '-f', 'qcow2', '-c', 'write -P 99 0 64k', path('qcow2'))
  await run('qemu-img', 'convert', '-O', 'raw', path('qcow2'), path('back'))
  const read = await opened(path('qcow2'))
  const back = await openFileSource(path('back'))
  assert.equal(await digestOf(read), await digestOf(back))
  await Promise.all([read.close(), back.close()])
  const file = await openFileSource(path('qcow2'))
  assert.match((await qcow2.audit(file)).join(), /3 internal snapshots/)
  await file.close()
})

test('an image with persistent bitmaps is accepted', { skip }, async (t) => {
  const path = await scratch(t)
  await run('qemu-img', 'create', '-q', '-f', 'qcow2', path('qcow2'), '8M')
  await run('qemu-img', 'bitmap', '--add', path('qcow2'), 'changed')
  await run('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 1M 64k', path('qcow2'))
  const read = await opened(path('qcow2'))
  assert.deepEqual([...(await read.read(MiB - 1, 2))], [0, 5])
  await read.close()
})

const secret = ['--object', 'secret,id=key,data=12345678']
const leaning = [
  { name: 'a backing file', make: ['-b', 'other', '-F', 'raw'], says: /backing file/ },
  { name: 'a data file', make: ['-o', 'data_file=data'], says: /another file/ },
  { name: 'a raw data file', make: ['-o', 'data_file=data,data_file_raw=on'], says: /another file/ },
  { name: 'AES', make: [...secret, '-o', 'encrypt.format=aes,encrypt.key-secret=key'], says: /encrypted .*AES/ },
  {
    name: 'LUKS',
    make: [...secret, '-o', 'encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=key'],
    says: /encrypted .*LUKS/,
  },
]
for (const { name, make, says } of leaning) {
  test(`an image that qemu-img made with ${name} is refused`, { skip }, async (t) => {
    const path = await scratch(t)
    await run('qemu-img', 'create', '-q', '-f', 'raw', path('other'), '1M')
    const command = ['qemu-img', 'create', '-q', '-f', 'qcow2', ...make, 'qcow2', '1M'].join(' ')
    await run('sh', '-c', `cd ${path('')} && ${command}`)
    const file = await openFileSource(path('qcow2'))
    await assert.rejects(qcow2.open(file), { message: says })
    await assert.rejects(qcow2.audit(file), { message: says })
    await file.close()
  })
}

test('clusters beyond the end of a file read as zeros, as in QEMU; the audit refuses the file as cut off', {
  skip,
}, async (t) => {
  const path = await scratch(t)
  for (const extended of ['off', 'on']) {
    const disk = randomDisk(4 * MiB, 8, 44)
    await writeSource(disk, path('raw'))
    await run('qemu-img', 'convert', '-O', 'qcow2', '-o', `extended_l2=${extended}`, path('raw'), path('qcow2'))
    const whole = await openFileSource(path('qcow2'))
    const { size } = whole
    await whole.close()
    for (const missing of [512, 30_000, 65536, 300_000]) {
      await run('truncate', '-s', String(size - missing), path('qcow2'))
      await run('qemu-img', 'convert', '-O', 'raw', path('qcow2'), path('back'))
      const file = checked(await openFileSource(path('qcow2')), 'file')
      const back = await openFileSource(path('back'))
      const read = checked(await qcow2.open(file), 'qcow2')
      assert.equal(await digestOf(read), await digestOf(back), `${missing} bytes missing`)
      await assertExtentsAreTrue(read)
      await back.close()
      const mayBeEmpty = extended === 'on' // what is cut off may be subclusters without data
      if (!mayBeEmpty && missing < 65536) assert.match((await qcow2.audit(file)).join(), /ends inside its last cluster/)
      if (!mayBeEmpty && missing >= 65536)
        await assert.rejects(qcow2.audit(file), { code: 'invalid-image', message: /beyond the end/ })
      await read.close()
    }
  }
})

test('qemu-img checks and compares the files that we write', { skip }, async (t) => {
  const path = await scratch(t)
  for (const [index, size] of [0, 512, 64 * KiB, 5 * MiB + 1024, 700 * MiB, 3_000_000_000_000].entries()) {
    const disk = randomDisk(size, 9, index)
    await writeSource(disk, path('raw'))
    const file = checked(await wrapDisk(checked(disk, 'disk')), 'qcow2')
    await writeSource(file, path('qcow2'))
    await run('qemu-img', 'check', '-f', 'qcow2', path('qcow2'))
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', path('raw'), path('qcow2'))
    assert.deepEqual(await qcow2.audit(file), [])
  }
})

test('a disk of an odd size is padded to a sector', { skip }, async (t) => {
  const path = await scratch(t)
  const file = checked(await wrapDisk(memorySource(70_000, [{ offset: 0, bytes: new Uint8Array(70_000).fill(5) }])), 'qcow2')
  await writeSource(file, path('qcow2'))
  await run('qemu-img', 'check', '-f', 'qcow2', path('qcow2'))
  const disk = await qcow2.open(file)
  assert.equal(disk.size, 70_144)
  assert.deepEqual([...(await disk.read(69_999, 3))], [5, 0, 0])
})

test('open(wrap(disk)) reads as the disk, and holes stay holes', async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: 0, max: 900_000_000 }),
    fc.integer({ min: 0, max: 12 }),
    fc.nat(),
    async (sectors, pieces, seed) => {
      const disk = checked(randomDisk(sectors * 512, pieces, seed), 'disk')
      const file = checked(await wrapDisk(disk), 'qcow2 file')
      const again = checked(await qcow2.open(file), 'qcow2')
      assert.equal(again.size, disk.size)
      let dataBytes = 0
      for await (const { kind, offset, length } of again.extents(0, again.size)) {
        if (kind !== 'data') continue
        dataBytes += length
        assert.deepEqual(await again.read(offset, length), await disk.read(offset, length))
      }
      const clusters = new Set<number>()
      for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
        if (kind !== 'data') continue
        assert.deepEqual(await again.read(offset, length), await disk.read(offset, length))
        for (let at = Math.floor(offset / 65536); at * 65536 < offset + length; at += 1) clusters.add(at)
      }
      assert.ok(dataBytes <= clusters.size * 65536, 'no more data than clusters that hold some')
    },
  )
  await fc.assert(property, { numRuns: 25 })
})

test('any range of a wrapped file is the same as in one read of all of it', async () => {
  const file = await wrapDisk(randomDisk(3 * MiB + 512, 6, 4))
  const whole = await file.read(0, file.size)
  const property = fc.asyncProperty(fc.nat(file.size), fc.nat(200_000), async (from, length) => {
    const count = Math.min(length, file.size - from)
    assert.deepEqual(await file.read(from, count), whole.slice(from, from + count))
  })
  await fc.assert(property, { numRuns: 200 })
})
