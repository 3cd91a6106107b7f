import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  assertExtentsAreTrue,
  digestOf,
  patterned,
  randomDisk,
  seeded,
  writeSource,
} from '../../../../test/fixtures/disk/disks.ts'
import { type Poke, poked } from '../../../../test/fixtures/disk/poked.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import {
  SMALL_BASE,
  smallVhd,
  VHD_BLOCK,
  VHD_BLOCKS,
  VHD_STRIDE,
  VHD_TABLE,
  vhdFooter,
  vhdSummed,
} from '../../../../test/fixtures/disk/vhd.ts'
import { GiB, KiB, MiB, TiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import { recognise } from '../recognise/recognise.ts'
import { verifyDeclared } from '../recognise/verify.ts'
import { footer, geometryOf } from './footer.ts'
import { vhd } from './vhd.ts'
import { wrapAzure, wrapDynamic, wrapFixed } from './wrap.ts'

const skip = lacking('qemu-img')
const withoutMounts = lacking('vhdimount', 'fusermount') || (existsSync('/dev/fuse') ? false : 'no /dev/fuse')

const opened = async (path: string): Promise<BlockSource> => {
  const file = checked(await openFileSource(path), 'file')
  await vhd.audit(file)
  return checked(await vhd.open(file), 'vhd')
}
const openedBytes = async (bytes: Uint8Array, parent?: BlockSource) =>
  checked(await vhd.open(checked(bytesSource(bytes), 'file'), { parent }), 'vhd')

const DISK_BYTES = 9 * MiB + 512
for (const subformat of ['dynamic', 'fixed']) {
  for (const force of ['on', 'off']) {
    test(`vhd reads what qemu-img reads: ${subformat}, force_size=${force}`, { skip }, async (t) => {
      const path = await scratch(t)
      const disk = randomDisk(DISK_BYTES, 12, 100)
      await writeSource(disk, path('raw'))
      const options = `subformat=${subformat},force_size=${force}`
      await run('qemu-img', 'convert', '-O', 'vpc', '-o', options, path('raw'), path('vhd'))
      await run('qemu-img', 'convert', '-f', 'vpc', '-O', 'raw', path('vhd'), path('back'))
      const read = await opened(path('vhd'))
      const back = await openFileSource(path('back'))
      assert.equal(read.size, back.size)
      assert.equal(await digestOf(read), await digestOf(back))
      assert.equal(await digestOf(read, 27 * KiB), await digestOf(back), 'in steps that cross blocks')
      await assertExtentsAreTrue(read)
      await Promise.all([read.close(), back.close()])
    })
  }
}

test('vhd reads disks that QEMU wrote to at random', { skip }, async (t) => {
  const path = await scratch(t)
  const random = seeded(20)
  for (const subformat of ['dynamic', 'fixed']) {
    await run('qemu-img', 'create', '-q', '-f', 'vpc', '-o', `force_size=on,subformat=${subformat}`, path('vhd'), '20M')
    const writes = Array.from({ length: 25 }, (_, index) => {
      const at = Math.floor(random() * 39_000) * 512
      const length = Math.ceil(random() * (random() < 0.5 ? 8 : 1800)) * 512
      return ['-c', `write ${random() < 0.2 ? '-z' : `-P ${index + 1}`} ${at} ${length}`]
    })
    await run('qemu-io', '-f', 'vpc', ...writes.flat(), path('vhd'))
    await run('qemu-img', 'convert', '-f', 'vpc', '-O', 'raw', path('vhd'), path('back'))
    const file = checked(await openFileSource(path('vhd')), 'file')
    assert.deepEqual(await vhd.audit(file), [])
    const read = checked(await vhd.open(file), 'vhd')
    const back = await openFileSource(path('back'))
    assert.equal(await digestOf(read), await digestOf(back))
    await assertExtentsAreTrue(read)
    await Promise.all([read.close(), back.close()])
  }
})

const fieldsOf = async (path: string) => {
  const file = await openFileSource(path)
  const fields = footer.parse(await file.read(file.size - 512, 512))
  await file.close()
  return fields
}

test('the geometry is that of qemu-img, for sizes that its cylinders make', { skip }, async (t) => {
  const path = await scratch(t)
  for (const size of ['1M', '3M', '100M', '503M', '504M', '2G', '31G', '32G', '126G']) {
    await run('qemu-img', 'create', '-q', '-f', 'vpc', path('vhd'), size)
    const { currentBytes, cylinders, heads, sectorsPerTrack } = await fieldsOf(path('vhd'))
    const ours = geometryOf(currentBytes)
    assert.deepEqual([ours.cylinders, ours.heads, ours.sectorsPerTrack], [cylinders, heads, sectorsPerTrack], size)
  }
  const { cylinders, heads, sectorsPerTrack } = geometryOf(2040 * GiB)
  assert.deepEqual([cylinders, heads, sectorsPerTrack], [65535, 16, 255])
})

const writers = { dynamic: wrapDynamic, fixed: wrapFixed, azure: wrapAzure }
const sizes = [0, 512, 64 * KiB, 2 * MiB, 5 * MiB + 1024, 700 * MiB, 2040 * GiB]
for (const [subformat, wrap] of Object.entries(writers)) {
  test(`qemu-img reads and compares the files that we write: ${subformat}`, { skip }, async (t) => {
    const path = await scratch(t)
    for (const [index, size] of sizes.entries()) {
      if (size === 0 && subformat !== 'dynamic') continue // QEMU takes the footer of an empty fixed disk for a copy at the start
      const disk = randomDisk(size, 9, index)
      await writeSource(disk, path('raw'))
      const file = checked(await wrap(checked(disk, 'disk')), 'vhd')
      await writeSource(file, path('vhd'))
      const info = JSON.parse(await run('qemu-img', 'info', '--output=json', '-f', 'vpc', path('vhd')))
      const unit = subformat === 'azure' ? MiB : 512
      assert.equal(info['virtual-size'], Math.ceil(size / unit) * unit)
      await run('qemu-img', 'compare', '-f', 'raw', '-F', 'vpc', path('raw'), path('vhd'))
      assert.deepEqual(await vhd.audit(file), [])
    }
  })

  test(`libvhdi knows the files that we write: ${subformat}`, { skip: lacking('vhdiinfo') }, async (t) => {
    const path = await scratch(t)
    for (const size of [5 * MiB + 1024, 3 * GiB, 2040 * GiB]) {
      const file = await wrap(randomDisk(size, 9, 1))
      await writeSource(file, path('vhd'))
      const unit = subformat === 'azure' ? MiB : 512
      const info = await run('vhdiinfo', path('vhd'))
      assert.match(info, new RegExp(`Disk type\\s+: ${subformat === 'dynamic' ? 'Dynamic' : 'Fixed'}`))
      assert.match(info, new RegExp(`Media size\\s+: .*\\(${Math.ceil(size / unit) * unit}\\b`))
    }
  })

  test(`libvhdi reads the files that we write: ${subformat}`, { skip: withoutMounts }, async (t) => {
    const path = await scratch(t)
    await mkdir(path('mounted'))
    for (const [index, size] of [5 * MiB + 1024, 40 * MiB].entries()) {
      const disk = randomDisk(size, 9, index)
      await writeSource(await wrap(disk), path('vhd'))
      await run('vhdimount', path('vhd'), path('mounted'))
      try {
        const read = await openFileSource(path('mounted/vhdi1'))
        const ours = await opened(path('vhd'))
        assert.equal(read.size, ours.size)
        assert.equal(await digestOf(read), await digestOf(ours))
        await Promise.all([read.close(), ours.close()])
      } finally {
        await run('fusermount', '-u', path('mounted'))
      }
    }
  })

  test(`open(wrap(disk)) reads as the disk, and any range of the file is that of all of it: ${subformat}`, async () => {
    const property = fc.asyncProperty(
      fc.integer({ min: 0, max: 20_000_000 }),
      fc.integer({ min: 0, max: 6 }),
      fc.nat(),
      async (size, pieces, seed) => {
        const disk = checked(randomDisk(size, pieces, seed), 'disk')
        const file = checked(await wrap(disk), 'vhd file')
        assert.deepEqual(await vhd.audit(file), [])
        const again = checked(await vhd.open(file), 'vhd')
        assert.deepEqual(await again.read(0, disk.size), await disk.read(0, disk.size))
        await assertExtentsAreTrue(again)
        const whole = await file.read(0, file.size)
        for (const [from, length] of [
          [0, 513],
          [1530, 1000],
          [file.size - 700, 700],
          [seed, 100_000],
        ] as const) {
          const start = Math.max(0, from) % file.size
          const count = Math.min(length, file.size - start)
          assert.deepEqual(await file.read(start, count), whole.slice(start, start + count))
        }
      },
    )
    await fc.assert(property, { numRuns: 12 })
  })
}

test('an Azure file is of whole MiB, and a footer', async () => {
  const file = await wrapAzure(randomDisk(3 * MiB + 512, 2, 1))
  assert.equal(file.size, 4 * MiB + 512)
  assert.equal((await vhd.open(file)).size, 4 * MiB)
})

test('a disk of 2,040 GiB costs no more file than it has data, and a larger one is too large', async () => {
  const piece = { offset: 2040 * GiB - 512, bytes: patterned(512, 1) }
  const file = checked(await wrapDynamic(memorySource(2040 * GiB, [piece])), 'file')
  assert.ok(file.size < 8 * MiB)
  assert.deepEqual(await vhd.audit(file), [])
  const disk = checked(await vhd.open(file), 'vhd')
  assert.deepEqual(await disk.read(piece.offset, 512), piece.bytes)
  const kinds = []
  for await (const { kind, length } of disk.extents(0, disk.size)) kinds.push([kind, length])
  assert.deepEqual(kinds, [
    ['hole', 2040 * GiB - 2 * MiB],
    ['data', 2 * MiB],
  ])
  for (const wrap of Object.values(writers)) {
    await assert.rejects(wrap(memorySource(16 * TiB, [])), { code: 'too-large', message: /2,040 GiB/ })
  }
})

test('holes of a fixed disk stay holes, both ways', async () => {
  const disk = memorySource(8 * MiB, [{ offset: MiB, bytes: patterned(4096, 1) }])
  const again = await vhd.open(await wrapFixed(disk))
  const kinds = await Array.fromAsync(again.extents(0, again.size), ({ kind, length }) => [kind, length])
  assert.deepEqual(kinds, [
    ['hole', MiB],
    ['data', 4096],
    ['hole', 7 * MiB - 4096],
  ])
})

test("a sector whose bit is clear is zeros in a dynamic disk, and the parent's in a differencing one", async () => {
  const shape = { places: [1, null, 0], bitmaps: [0b00111111, 0b10000001] }
  const parent = patterned(2 * VHD_BLOCK + 1000, 99)
  const data = [patterned(VHD_BLOCK, 1), patterned(VHD_BLOCK, 2)]
  for (const withParent of [false, true]) {
    const expected = new Uint8Array(3 * VHD_BLOCK)
    if (withParent) expected.set(parent)
    expected.set(data[1]!.subarray(0, 512), 0)
    expected.set(data[1]!.subarray(3584), 3584)
    expected.set(data[0]!.subarray(1024), 2 * VHD_BLOCK + 1024)
    const file = smallVhd({ type: withParent ? 4 : 3, ...shape })
    const below = withParent ? bytesSource(parent) : undefined
    assert.deepEqual(await vhd.audit(bytesSource(file), { parent: below }), [])
    const disk = await openedBytes(file, below)
    assert.deepEqual(await disk.read(0, disk.size), expected)
    for (let at = 0; at < disk.size; at += 300) {
      const length = Math.min(700, disk.size - at)
      assert.deepEqual(await disk.read(at, length), expected.subarray(at, at + length))
    }
    await assertExtentsAreTrue(disk)
  }
})

test('a child is not opened without its parent, nor a parent given to what is no child', async () => {
  const child = smallVhd({ type: 4, ...SMALL_BASE })
  const parent = bytesSource(new Uint8Array(VHD_BLOCK))
  const reason = (reason: string) => ({ code: 'invalid-image', details: { format: 'vhd', reason } })
  await assert.rejects(openedBytes(child), reason('external-reference'))
  await assert.rejects(vhd.audit(bytesSource(child)), reason('external-reference'))
  await assert.rejects(openedBytes(smallVhd(SMALL_BASE), parent), reason('malformed'))
  await assert.rejects(vhd.open(bytesSource(smallVhd(SMALL_BASE)), { snapshot: '1' }), { code: 'not-found' })
})

const creators: readonly { creator: string; geometry: readonly number[]; size: number | RegExp }[] = [
  { creator: 'win ', geometry: [1, 4, 17], size: 60 * KiB },
  { creator: 'qem2', geometry: [1, 4, 17], size: 60 * KiB },
  { creator: 'd2v ', geometry: [0, 0, 0], size: 60 * KiB },
  { creator: 'tap\0', geometry: [0, 0, 0], size: 60 * KiB },
  { creator: 'vbox', geometry: [1, 4, 17], size: 60 * KiB },
  { creator: 'wa\0\0', geometry: [1, 4, 17], size: 60 * KiB },
  { creator: 'vpc ', geometry: [1, 4, 17], size: 34 * KiB },
  { creator: 'vs  ', geometry: [1, 4, 17], size: 60 * KiB },
  { creator: 'qemu', geometry: [1, 4, 17], size: 34 * KiB },
  { creator: 'qemu', geometry: [65535, 16, 255], size: 60 * KiB },
  { creator: 'qemu', geometry: [0, 4, 17], size: /no cylinders/ },
  { creator: 'vpc ', geometry: [2, 4, 17], size: /only 61440 come before/ },
]
for (const { creator, geometry, size } of creators) {
  test(`the size of a disk by "${creator}" with the geometry ${geometry}`, async () => {
    const [cylinders = 0, heads = 0, sectors = 0] = geometry
    const file = vhdSummed(
      poked(
        new Uint8Array(60 * KiB + 512),
        false,
        [60 * KiB, vhdFooter(60 * KiB)],
        [60 * KiB + 28, creator],
        [60 * KiB + 56, 2, cylinders],
        [60 * KiB + 58, 1, heads],
        [60 * KiB + 59, 1, sectors],
      ),
    )
    if (typeof size === 'number') assert.equal((await openedBytes(file)).size, size)
    else await assert.rejects(openedBytes(file), { code: 'invalid-image', message: size })
  })
}

test('a fixed disk may begin with any bytes, but not with a footer', async () => {
  const disk = (...pokes: readonly Poke[]) => bytesSource(poked(patterned(2 * MiB, 1), false, [0, 'conectix'], ...pokes))
  for (const wrap of [wrapFixed, wrapAzure]) {
    const file = checked(await wrap(disk()), 'file')
    const recognition = await recognise(file)
    assert.deepEqual(verifyDeclared('vhd', recognition, 'bare'), [])
    assert.equal(recognition.found[0]?.virtualBytes, 2 * MiB)
    assert.deepEqual(await vhd.audit(file), [])
    assert.equal(await digestOf(await vhd.open(file)), await digestOf(disk()))
    const nested = disk([0, vhdFooter(4096, 3, 512n)])
    await assert.rejects(wrap(nested), { code: 'unsupported', message: /begins with the footer of a VHD/ })
    assert.equal(await digestOf(await vhd.open(await wrapDynamic(nested))), await digestOf(nested))
  }
})

test('a footer at the start that is whole and not that of the end is refused, whatever the end says', async () => {
  for (const type of [2, 3]) {
    const file = bytesSource(poked(patterned(4096, 1), false, [0, vhdFooter(4096, type, 512n)], [4096, vhdFooter(4096)]))
    await assert.rejects(vhd.open(file), { code: 'invalid-image' })
    const recognition = await recognise(file)
    assert.throws(() => verifyDeclared('vhd', recognition, 'bare'), { code: 'invalid-image' })
  }
})

test('a footer of 511 bytes is read, with a warning', async () => {
  const fixed = poked(patterned(4096, 1), false, [4096, vhdFooter(4096)]).subarray(0, 4096 + 511)
  const disk = await openedBytes(fixed)
  assert.deepEqual(await disk.read(0, 4096), patterned(4096, 1))
  assert.match((await vhd.audit(bytesSource(fixed))).join(), /511 bytes/)
  const dynamic = smallVhd(SMALL_BASE)
  const short = dynamic.subarray(0, dynamic.length - 1)
  assert.deepEqual(await digestOf(await openedBytes(short)), await digestOf(await openedBytes(dynamic)))
})

const end = VHD_BLOCKS + SMALL_BASE.bitmaps.length * VHD_STRIDE
const both = (at: number, width: 1 | 2 | 4 | 8, value: number | bigint): Poke[] => [
  [at, width, value],
  [end + at, width, value],
]
interface Refused {
  readonly name: string
  readonly pokes: readonly Poke[]
  readonly says: RegExp
  readonly code?: string
}
const refused: readonly Refused[] = [
  { name: 'another version', pokes: both(12, 4, 0x20000), says: /File Format Version 2/, code: 'unsupported' },
  { name: 'an unknown type', pokes: both(60, 4, 5), says: /Disk Type is 5/ },
  { name: 'type fixed, with a copy at the start', pokes: both(60, 4, 2), says: /fixed/ },
  { name: '2^53 bytes', pokes: both(48, 8, 2n ** 53n), says: /2\^53/ },
  { name: 'more than 2,040 GiB', pokes: both(48, 8, 2040 * GiB + 512), says: /2,040 GiB/ },
  { name: 'footers that disagree', pokes: [[48, 8, 512]], says: /contradict/ },
  { name: 'the header in the footer', pokes: both(16, 8, 256), says: /Data Offset/ },
  { name: 'no header', pokes: both(16, 8, 2n ** 64n - 1n), says: /Data Offset/ },
  { name: 'the header beyond the end', pokes: both(16, 8, 2n ** 62n), says: /Data Offset/ },
  { name: 'no signature of the header', pokes: [[512, 'cxsparsf']], says: /cxsparse/ },
  { name: 'another version of the header', pokes: [[536, 4, 0]], says: /Header Version 0/, code: 'unsupported' },
  ...[0, 3, 256, 2 ** 31].map((size): Refused => ({ name: `blocks of ${size}`, pokes: [[544, 4, size]], says: /Block Size is/ })),
  { name: 'a table that is too small', pokes: [[540, 4, 1]], says: /Max Table Entries is 1, and the disk has 3/ },
  { name: '2^32 − 1 entries', pokes: [[540, 4, 2 ** 32 - 1]], says: /between the footers/ },
  {
    name: 'too many blocks',
    pokes: [...both(48, 8, 2039 * GiB), [540, 4, 2 ** 32 - 1]],
    says: /at most 8388608/,
    code: 'unsupported',
  },
  { name: 'the table in the footer', pokes: [[528, 8, 8]], says: /between the footers/ },
  { name: 'the table beyond the end', pokes: [[528, 8, 2 ** 50]], says: /between the footers/ },
]
for (const { name, pokes, says, code = 'invalid-image' } of refused) {
  test(`vhd refuses ${name}`, async () => {
    const file = bytesSource(smallVhd(SMALL_BASE, ...pokes))
    await assert.rejects(vhd.open(file), { code, message: says })
    await assert.rejects(vhd.audit(file), { code, message: says })
  })
}

test('wrong checksums are refused, and so is a file whose end is missing', async () => {
  const whole = smallVhd(SMALL_BASE)
  await assert.rejects(openedBytes(whole.with(90, 1)), { message: /checksum of the footer at byte 0/ })
  await assert.rejects(openedBytes(whole.with(end + 90, 1)), { message: new RegExp(`checksum of the footer at byte ${end}`) })
  await assert.rejects(openedBytes(whole.with(900, 1)), { message: /checksum of the dynamic disk header/ })
  await assert.rejects(openedBytes(whole.subarray(0, end)), { code: 'invalid-image', message: /upload complete/ })
  for (const length of [0, 1, 510]) await assert.rejects(openedBytes(new Uint8Array(length)), { message: /no footer/ })
  await assert.rejects(openedBytes(poked(new Uint8Array(2048), false, [1536, vhdFooter(1024, 3, 512n)])), { message: /copy/ })
})

const misplaced = [
  { name: 'beyond the end', entry: 2 ** 32 - 2, says: /does not end before the footer/, fails: true },
  {
    name: 'on the last footer',
    entry: VHD_BLOCKS / 512 + (VHD_STRIDE / 512) * 2 - 8,
    says: /does not end before the footer/,
    fails: true,
  },
  { name: 'on the copy of the footer', entry: 0, says: /lies on the copy of the footer/ },
  { name: 'on the header', entry: 2, says: /lies on the dynamic disk header/ },
  { name: 'on the table', entry: 3, says: /lies on the block allocation table/ },
  { name: 'on another block', entry: VHD_BLOCKS / 512, says: /two blocks/ },
  { name: 'in another block', entry: VHD_BLOCKS / 512 + 5, says: /two blocks/ },
]
for (const { name, entry, says, fails } of misplaced) {
  test(`a block ${name} is refused`, async () => {
    const file = bytesSource(smallVhd(SMALL_BASE, [VHD_TABLE, 4, entry]))
    await assert.rejects(vhd.audit(file), { code: 'invalid-image', message: says })
    const disk = checked(await vhd.open(file), 'vhd')
    if (fails) await assert.rejects(disk.read(0, 512), { code: 'invalid-image', message: says })
    else assert.equal((await disk.read(0, 512)).length, 512)
  })
}

test('a table on the header is refused', async () => {
  const file = bytesSource(smallVhd(SMALL_BASE, [528, 8, 600]))
  await assert.rejects(vhd.audit(file), { code: 'invalid-image', message: /lies on the dynamic disk header/ })
})

test('people are told of what they may not expect', async () => {
  const warned = async (...pokes: readonly Poke[]) => (await vhd.audit(bytesSource(smallVhd(SMALL_BASE, ...pokes)))).join()
  assert.match(await warned([84, 1, 1], [end + 84, 1, 1]), /was saved/)
  const geometry = (at: number) => [
    [at + 28, 'vpc '] as const,
    [at + 56, 2, 1] as const,
    [at + 58, 1, 1] as const,
    [at + 59, 1, 17] as const,
  ]
  assert.match(await warned(...geometry(0), ...geometry(end)), /8704 bytes by its geometry.*12288/)
  const trailing = poked(new Uint8Array(4096), false, [4096, vhdFooter(1024)])
  assert.match((await vhd.audit(bytesSource(trailing))).join(), /3072 bytes between/)
})
