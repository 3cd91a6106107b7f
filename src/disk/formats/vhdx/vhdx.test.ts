import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertExtentsAreTrue, digestOf, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { memorySource } from '../../block/memory-source.ts'
import { vhdx } from './vhdx.ts'
import { wrapDynamic, wrapFixed } from './wrap.ts'

const MiB = 1024 * 1024
const GiB = 1024 * MiB
const TiB = 1024 * GiB
const skip = lacking('qemu-img')

const opened = async (path: string): Promise<BlockSource> => {
  const file = checked(await openFileSource(path), 'file')
  assert.deepEqual(await vhdx.audit(file), [])
  return checked(await vhdx.open(file), 'vhdx')
}

/** Where one has data, both read the same; elsewhere both are empty. */
async function assertSame(disk: BlockSource, other: BlockSource): Promise<void> {
  assert.equal(disk.size, other.size)
  for (const source of [disk, other]) {
    for await (const { kind, offset, length } of source.extents(0, source.size)) {
      for (let at = offset; kind === 'data' && at < offset + length; at += 4 * MiB) {
        const bytes = Math.min(4 * MiB, offset + length - at)
        assert.equal(Buffer.compare(await disk.read(at, bytes), await other.read(at, bytes)), 0, `differ behind byte ${at}`)
      }
    }
  }
}

const variants = [
  ...[1, 2, 8, 64, 256].map((block) => ({ size: 20 * MiB + 512, options: `block_size=${block}M` })),
  { size: 20 * MiB + 512, options: 'block_state_zero=off,block_size=1M' },
  { size: 20 * MiB + 512, options: 'log_size=4M' },
  { size: 20 * MiB + 512, options: 'subformat=fixed,block_size=1M' },
  { size: 20 * MiB + 512, options: 'subformat=fixed' },
  { size: 9 * GiB, options: 'block_size=1M' }, // three chunks of 4 GiB
  { size: 3 * TiB, options: 'block_size=256M' },
]
for (const [index, { size, options }] of variants.entries()) {
  test(`vhdx reads what qemu-img made: ${size} bytes, ${options}`, { skip }, async (t) => {
    const path = await scratch(t)
    const disk = randomDisk(size, size < TiB ? 12 : 2, 100 + index)
    await writeSource(disk, path('raw'))
    await run('qemu-img', 'convert', '-O', 'vhdx', '-o', options, path('raw'), path('vhdx'))
    const read = await opened(path('vhdx'))
    await assertSame(read, disk)
    if (size < GiB) {
      assert.equal(await digestOf(read, 777 * 1024), await digestOf(disk), 'in steps that cross blocks')
      await assertExtentsAreTrue(read)
    }
    await read.close()
  })
}

test('vhdx reads a disk that was written to in places, and its unwritten blocks are no data', { skip }, async (t) => {
  const path = await scratch(t)
  for (const state of ['on', 'off']) {
    await run('qemu-img', 'create', '-q', '-f', 'vhdx', '-o', `block_size=1M,block_state_zero=${state}`, path('vhdx'), '5000000K')
    const writes = ['write -P 7 100k 70k', 'write -P 9 4095M 2M', 'write -P 3 2500M 1k'].flatMap((each) => ['-c', each])
    await run('qemu-io', '-f', 'vhdx', ...writes, path('vhdx'))
    await run('qemu-img', 'convert', '-O', 'raw', path('vhdx'), path('back'))
    const [read, back] = [await opened(path('vhdx')), await openFileSource(path('back'))]
    await assertSame(read, back)
    const kinds = (await Array.fromAsync(read.extents(0, read.size))).map(({ kind }) => kind)
    assert.deepEqual([...new Set(kinds)], ['data', state === 'on' ? 'zero' : 'hole'])
    await Promise.all([read.close(), back.close()])
  }
})

test('vhdx reads disks that qemu-io wrote to, zeroed and discarded at random', {
  skip: lacking('qemu-img', 'qemu-io'),
}, async (t) => {
  const path = await scratch(t)
  const write = fc.tuple(
    fc.constantFrom('write -P 7', 'write -z', 'write -z -u', 'discard'),
    fc.nat(60_000),
    fc.integer({ min: 1, max: 9000 }),
  )
  const property = fc.asyncProperty(
    fc.constantFrom(1, 2, 8, 32),
    fc.constantFrom('dynamic', 'fixed'),
    fc.array(write, { minLength: 1, maxLength: 8 }),
    async (block, subformat, writes) => {
      const options = `block_size=${block}M,subformat=${subformat}`
      await run('qemu-img', 'create', '-q', '-f', 'vhdx', '-o', options, path('vhdx'), `${70_000 * 512}`)
      await run(
        'qemu-io',
        '-f',
        'vhdx',
        ...writes.flatMap(([what, at, sectors]) => ['-c', `${what} ${at * 512} ${sectors * 512}`]),
        path('vhdx'),
      )
      await run('qemu-img', 'convert', '-f', 'vhdx', '-O', 'raw', path('vhdx'), path('back'))
      const [read, back] = [await opened(path('vhdx')), await openFileSource(path('back'))]
      assert.equal(await digestOf(read), await digestOf(back))
      await Promise.all([read.close(), back.close()])
    },
  )
  await fc.assert(property, { numRuns: Number(process.env.DIFFERENTIAL_RUNS ?? 4) })
})

for (const { subformat } of vhdx.writers) {
  test(`qemu-img checks and compares the ${subformat} files that we write`, { skip }, async (t) => {
    const path = await scratch(t)
    const sizes = [512, 64 * 1024, 5 * MiB + 1024, 200 * MiB]
    const large = [5 * GiB, 200 * GiB, 40 * TiB]
    for (const [index, size] of [...sizes, ...(subformat === 'dynamic' ? large : [])].entries()) {
      const disk = randomDisk(size, size < GiB ? 9 : 3, index)
      const isSmall = size < 10 * GiB
      if (isSmall) await writeSource(disk, path('raw'))
      const wrap = subformat === 'dynamic' ? wrapDynamic : wrapFixed
      const file = checked(await wrap(checked(disk, 'disk')), 'vhdx')
      await writeSource(file, path('vhdx'))
      await run('qemu-img', 'check', '-f', 'vhdx', path('vhdx'))
      assert.equal(JSON.parse(await run('qemu-img', 'info', '--output=json', path('vhdx')))['virtual-size'], size)
      if (isSmall) await run('qemu-img', 'compare', '-f', 'raw', '-F', 'vhdx', path('raw'), path('vhdx'))
      assert.deepEqual(await vhdx.audit(file), [])
      await assertSame(await vhdx.open(file), disk)
    }
  })
}

test('vhdiinfo reads the files that we write', { skip: lacking('vhdiinfo') }, async (t) => {
  const path = await scratch(t)
  for (const [wrap, type] of [
    [wrapDynamic, 'Dynamic'],
    [wrapFixed, 'Fixed'],
  ] as const) {
    await writeSource(await wrap(randomDisk(30 * MiB, 3, 1)), path('vhdx'))
    const info = await run('vhdiinfo', path('vhdx'))
    assert.match(info, new RegExp(`Disk type\\s*: ${type}`))
    assert.match(info, /Media size\s*: 30 MiB \(31457280 bytes\)/)
  }
})

test('a disk of an odd size is padded to a sector, one of no size is a file without blocks', async () => {
  const file = checked(await wrapDynamic(memorySource(70_000, [{ offset: 0, bytes: new Uint8Array(70_000).fill(5) }])), 'vhdx')
  const disk = await vhdx.open(file)
  assert.equal(disk.size, 70_144)
  assert.deepEqual([...(await disk.read(69_999, 3))], [5, 0, 0])
  const empty = await vhdx.open(await wrapDynamic(memorySource(0, [])))
  assert.equal(empty.size, 0)
})

test('64 TiB is the largest disk, and an empty one is a file of a few MiB', async () => {
  const disk = memorySource(64 * TiB, [{ offset: 64 * TiB - 512, bytes: new Uint8Array(512).fill(9) }])
  const file = checked(await wrapDynamic(disk), 'vhdx')
  assert.equal(file.size, (3 + 9 + 64) * MiB) // 2^20 entries, and one of a sector bitmap for each 64 of them: 8 MiB and 128 KiB
  assert.deepEqual(await vhdx.audit(file), [])
  const again = checked(await vhdx.open(file), 'vhdx')
  assert.deepEqual(await Array.fromAsync(again.extents(0, again.size)), [
    { offset: 0, length: 64 * TiB - 64 * MiB, kind: 'hole' },
    { offset: 64 * TiB - 64 * MiB, length: 64 * MiB, kind: 'data' },
  ])
  assert.deepEqual(await again.read(again.size - 512, 512), await disk.read(disk.size - 512, 512))
  await assert.rejects(wrapDynamic(memorySource(64 * TiB + 1, [])), { code: 'too-large', message: /64 TiB/ })
})

test('open(wrap(disk)) reads as the disk, and holes stay holes', async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: 0, max: 900_000_000 }),
    fc.integer({ min: 0, max: 12 }),
    fc.nat(),
    fc.constantFrom(wrapDynamic, wrapFixed),
    async (sectors, pieces, seed, wrap) => {
      const disk = checked(randomDisk(sectors * 512, pieces, seed), 'disk')
      const file = checked(await wrap(disk), 'vhdx file')
      const again = checked(await vhdx.open(file), 'vhdx')
      assert.equal(again.size, disk.size)
      let dataBytes = 0
      for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
        if (kind !== 'data') continue
        dataBytes += length
        assert.deepEqual(await again.read(offset, length), await disk.read(offset, length))
      }
      let fileDataBytes = 0
      for await (const { kind, length } of file.extents(0, file.size)) if (kind === 'data') fileDataBytes += length
      assert.ok(fileDataBytes < dataBytes + 2 * MiB, 'the file is as sparse as the disk')
    },
  )
  await fc.assert(property, { numRuns: 25 })
})

test('any range of a wrapped file is the same as in one read of all of it', async () => {
  const file = await wrapDynamic(randomDisk(9 * MiB + 512, 6, 4))
  const whole = await file.read(0, file.size)
  const starts = fc.oneof(
    fc.nat(file.size),
    fc.constantFrom(64, 128, 192, 256, 2048, 2112, 3072, 4096).map((at) => at * 1024),
  )
  const property = fc.asyncProperty(starts, fc.nat(3000), async (from, length) => {
    const count = Math.min(length, file.size - from)
    assert.deepEqual(await file.read(from, count), whole.slice(from, from + count))
  })
  await fc.assert(property, { numRuns: 300 })
})
