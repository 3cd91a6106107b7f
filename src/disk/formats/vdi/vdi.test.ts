import assert from 'node:assert/strict'
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
import type { Poke } from '../../../../test/fixtures/disk/poked.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import { smallVdi, VDI_BASE, VDI_BLOCK, VDI_CHILD, VDI_DATA, VDI_MAP } from '../../../../test/fixtures/disk/vdi.ts'
import { GiB, KiB, MiB, TiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import { vdi } from './vdi.ts'
import { wrapDynamic, wrapStatic } from './wrap.ts'

const skip = lacking('qemu-img')

const openedBytes = async (bytes: Uint8Array, parent?: BlockSource) =>
  checked(await vdi.open(checked(bytesSource(bytes), 'file'), { parent }), 'vdi')

const DISK_BYTES = 9 * MiB + 512
for (const isStatic of ['off', 'on']) {
  test(`vdi reads what qemu-img reads: static=${isStatic}`, { skip }, async (t) => {
    const path = await scratch(t)
    await writeSource(randomDisk(DISK_BYTES, 12, 100), path('raw'))
    await run('qemu-img', 'convert', '-O', 'vdi', '-o', `static=${isStatic}`, path('raw'), path('vdi'))
    await run('qemu-io', '-f', 'vdi', '-c', 'write -P 5 3M 70k', '-c', 'write -P 6 9M 512', path('vdi'))
    await run('qemu-img', 'convert', '-O', 'raw', path('vdi'), path('back'))
    const file = checked(await openFileSource(path('vdi')), 'file')
    assert.deepEqual(await vdi.audit(file), [])
    const read = checked(await vdi.open(file), 'vdi')
    const back = await openFileSource(path('back'))
    assert.equal(read.size, back.size)
    assert.equal(await digestOf(read), await digestOf(back))
    assert.equal(await digestOf(read, 27 * KiB), await digestOf(back), 'in steps that cross blocks')
    await assertExtentsAreTrue(read)
    await Promise.all([read.close(), back.close()])
  })
}

test('vdi reads disks that QEMU wrote to at random', { skip }, async (t) => {
  const path = await scratch(t)
  const random = seeded(20)
  for (const isStatic of ['off', 'on']) {
    await run('qemu-img', 'create', '-q', '-f', 'vdi', '-o', `static=${isStatic}`, path('vdi'), '20M')
    const writes = Array.from({ length: 25 }, (_, index) => {
      const at = Math.floor(random() * 39_000) * 512
      const length = Math.ceil(random() * (random() < 0.5 ? 8 : 1800)) * 512
      return ['-c', `write ${random() < 0.2 ? '-z' : `-P ${index + 1}`} ${at} ${length}`]
    })
    await run('qemu-io', '-f', 'vdi', ...writes.flat(), path('vdi'))
    await run('qemu-img', 'convert', '-f', 'vdi', '-O', 'raw', path('vdi'), path('back'))
    const file = checked(await openFileSource(path('vdi')), 'file')
    assert.deepEqual(await vdi.audit(file), [])
    const read = checked(await vdi.open(file), 'vdi')
    const back = await openFileSource(path('back'))
    assert.equal(await digestOf(read), await digestOf(back))
    await assertExtentsAreTrue(read)
    await Promise.all([read.close(), back.close()])
  }
})

const writers = { dynamic: wrapDynamic, static: wrapStatic }
for (const [subformat, wrap] of Object.entries(writers)) {
  test(`qemu-img checks and compares the files that we write: ${subformat}`, { skip }, async (t) => {
    const path = await scratch(t)
    for (const [index, size] of [0, 512, 64 * KiB, MiB, 5 * MiB + 1024, 700 * MiB, 100 * GiB].entries()) {
      const disk = randomDisk(size, 9, index)
      await writeSource(disk, path('raw'))
      const file = checked(await wrap(checked(disk, 'disk')), 'vdi')
      await writeSource(file, path('vdi'))
      const info = JSON.parse(await run('qemu-img', 'info', '--output=json', path('vdi')))
      assert.deepEqual([info.format, info['virtual-size']], ['vdi', size])
      await run('qemu-img', 'check', '-f', 'vdi', path('vdi'))
      await run('qemu-img', 'compare', '-f', 'raw', '-F', 'vdi', path('raw'), path('vdi'))
      assert.deepEqual(await vdi.audit(file), [])
    }
  })

  test(`open(wrap(disk)) reads as the disk, and any range of the file is that of all of it: ${subformat}`, async () => {
    const property = fc.asyncProperty(
      fc.integer({ min: 0, max: 20_000_000 }),
      fc.integer({ min: 0, max: 6 }),
      fc.nat(),
      async (size, pieces, seed) => {
        const disk = checked(randomDisk(size, pieces, seed), 'disk')
        const file = checked(await wrap(disk), 'vdi file')
        assert.deepEqual(await vdi.audit(file), [])
        const again = checked(await vdi.open(file), 'vdi')
        assert.equal(again.size, Math.ceil(size / 512) * 512)
        assert.deepEqual(await again.read(0, disk.size), await disk.read(0, disk.size))
        await assertExtentsAreTrue(again)
        const whole = await file.read(0, file.size)
        for (const from of [0, MiB - 1, MiB + 2, 2 * MiB - 100, seed]) {
          const start = from % file.size
          const count = Math.min(100_001, file.size - start)
          assert.deepEqual(await file.read(start, count), whole.slice(start, start + count))
        }
      },
    )
    await fc.assert(property, { numRuns: 12 })
  })
}

test('a disk of 64 TiB costs no more file than it has data, and a larger one is too large', async () => {
  const piece = { offset: 40 * TiB, bytes: patterned(512, 1) }
  const file = checked(await wrapDynamic(memorySource(64 * TiB, [piece])), 'file')
  assert.equal(file.size, 258 * MiB)
  const disk = checked(await vdi.open(file), 'vdi')
  assert.equal(disk.size, 64 * TiB)
  assert.deepEqual(await disk.read(piece.offset, 512), piece.bytes)
  for (const wrap of Object.values(writers)) {
    await assert.rejects(wrap(memorySource(64 * TiB + 1, [])), { code: 'too-large', message: /64 TiB/ })
  }
})

test('holes of a static disk stay holes, both ways', async () => {
  const disk = memorySource(8 * MiB, [{ offset: MiB, bytes: patterned(4096, 1) }])
  const again = await vdi.open(await wrapStatic(disk))
  const kinds = await Array.fromAsync(again.extents(0, again.size), ({ kind, length }) => [kind, length])
  assert.deepEqual(kinds, [
    ['hole', MiB],
    ['data', 4096],
    ['hole', 7 * MiB - 4096],
  ])
})

test("a free block is zeros in a disk that stands alone, and the parent's in a differencing one; a block of zeros hides the parent", async () => {
  const parent = patterned(3 * VDI_BLOCK, 99)
  for (const below of [undefined, bytesSource(parent)]) {
    const file = smallVdi(...VDI_BASE, ...(below ? VDI_CHILD : []))
    const expected = new Uint8Array(4 * VDI_BLOCK)
    expected.set(patterned(VDI_BLOCK, 2), 0)
    if (below) expected.set(parent.subarray(VDI_BLOCK, 2 * VDI_BLOCK), VDI_BLOCK)
    expected.set(patterned(VDI_BLOCK, 1), 3 * VDI_BLOCK)
    assert.deepEqual(await vdi.audit(bytesSource(file), { parent: below }), [])
    const disk = await openedBytes(file, below)
    assert.deepEqual(await disk.read(0, disk.size), expected)
    for (let at = 0; at < disk.size; at += 1000) {
      const length = Math.min(5000, disk.size - at)
      assert.deepEqual(await disk.read(at, length), expected.subarray(at, at + length))
    }
    const kinds = await Array.fromAsync(disk.extents(0, disk.size), ({ kind }) => kind)
    assert.deepEqual(kinds, below ? ['data', 'zero', 'data'] : ['data', 'hole', 'zero', 'data'])
  }
})

test('a child is not opened without its parent, nor a parent given to what is no child', async () => {
  const child = smallVdi(...VDI_BASE, ...VDI_CHILD)
  const parent = bytesSource(new Uint8Array(VDI_BLOCK))
  const because = (reason: string, details = {}) => ({ code: 'invalid-image', details: { format: 'vdi', reason, ...details } })
  await assert.rejects(openedBytes(child), because('external-reference'))
  await assert.rejects(vdi.audit(bytesSource(child)), because('external-reference'))
  await openedBytes(smallVdi(...VDI_BASE, ...VDI_CHILD, [0x4c, 4, 3]), parent)
  await assert.rejects(openedBytes(smallVdi(...VDI_BASE), parent), because('malformed'))
  const orphan = smallVdi(...VDI_BASE, [0x4c, 4, 4])
  await assert.rejects(openedBytes(orphan, parent), because('malformed', { imageType: 4 }))
  for (const linked of [0x1a8, 0x1b8]) {
    const file = smallVdi(...VDI_BASE, [linked, 1, 1])
    for (const given of [undefined, parent]) {
      await assert.rejects(openedBytes(file, given), because('external-reference', { imageType: 1 }))
    }
  }
  await assert.rejects(vdi.open(bytesSource(smallVdi(...VDI_BASE)), { snapshot: '1' }), { code: 'not-found' })
})

test('blocks side by side in the file are read in one go, and the last values of entries are no blocks', async () => {
  const file = smallVdi([0, 1, 2, 0xffffffff], 3)
  const reads: number[] = []
  const counted: BlockSource = {
    ...bytesSource(file),
    read: (offset, length) => {
      reads.push(length)
      return bytesSource(file).read(offset, length)
    },
  }
  const disk = await vdi.open(counted)
  await disk.read(100, 3 * VDI_BLOCK - 200)
  assert.equal(reads.at(-1), 3 * VDI_BLOCK - 200)
  const last = await openedBytes(smallVdi([0xfffffffd, 0xfffffffe, 0xffffffff, 0], 1))
  await assert.rejects(last.read(0, 1), { code: 'invalid-image', message: /beyond the end/ })
  assert.deepEqual(await last.read(VDI_BLOCK, 2 * VDI_BLOCK), new Uint8Array(2 * VDI_BLOCK))
})

test('a disk of an odd size is rounded up to a sector, as in QEMU', async () => {
  const disk = await openedBytes(smallVdi([0], 1, [0x170, 8, 4000]))
  assert.equal(disk.size, 4096)
})

interface Refused {
  readonly name: string
  readonly pokes: readonly Poke[]
  readonly says: RegExp
  readonly code?: string
}
const refused: readonly Refused[] = [
  { name: 'a wrong signature', pokes: [[0x40, 4, 0]], says: /signature/ },
  { name: 'version 0.1', pokes: [[0x44, 4, 1]], says: /version is 0\.1/, code: 'unsupported' },
  { name: 'image type 5', pokes: [[0x4c, 4, 5]], says: /image type is 5/ },
  { name: 'sectors of 4 KiB', pokes: [[0x168, 4, 4096]], says: /sectors of 4096/, code: 'unsupported' },
  { name: 'extra bytes in blocks', pokes: [[0x17c, 4, 512]], says: /cbBlockExtra 512/, code: 'unsupported' },
  ...[0, 3, 2048, 2 ** 31].map((size): Refused => ({ name: `blocks of ${size}`, pokes: [[0x178, 4, size]], says: /cbBlock is/ })),
  { name: 'a disk larger than its blocks', pokes: [[0x170, 8, 4 * VDI_BLOCK + 1]], says: /too few blocks/ },
  { name: '2^53 bytes', pokes: [[0x170, 8, 2n ** 53n]], says: /2\^53/ },
  { name: '2^32 − 1 blocks', pokes: [[0x180, 4, 2 ** 32 - 1]], says: /at most 67108864/, code: 'unsupported' },
  { name: 'more blocks allocated than there are', pokes: [[0x184, 4, 5]], says: /cBlocksAllocated is 5, of 4/ },
  { name: 'a map in the header', pokes: [[0x154, 4, 0]], says: /offBlocks/ },
  { name: 'a map that is not aligned', pokes: [[0x154, 4, 513]], says: /offBlocks/ },
  { name: 'blocks that are not aligned', pokes: [[0x158, 4, 1025]], says: /offData/ },
  { name: 'blocks on the map', pokes: [[0x158, 4, 512]], says: /reaches beyond offData/ },
  {
    name: 'a map beyond the end',
    pokes: [
      [0x154, 4, 2 ** 31],
      [0x158, 4, 2 ** 31 + 512],
    ],
    says: /upload complete/,
  },
]
for (const { name, pokes, says, code = 'invalid-image' } of refused) {
  test(`vdi refuses ${name}`, async () => {
    const file = bytesSource(smallVdi(...VDI_BASE, ...pokes))
    await assert.rejects(vdi.open(file), { code, message: says })
    await assert.rejects(vdi.audit(file), { code, message: says })
  })
}

test('a file that is shorter than a header is refused', async () => {
  for (const length of [0, 64, 455]) {
    await assert.rejects(openedBytes(smallVdi(...VDI_BASE).subarray(0, length)), { code: 'invalid-image', message: /cut off/ })
  }
})

const misplaced: readonly { name: string; poke: Poke; says: RegExp }[] = [
  { name: 'used twice', poke: [VDI_MAP, 4, 0], says: /in use already/ },
  { name: 'that is not allocated', poke: [VDI_MAP, 4, 2], says: /cBlocksAllocated is 2/ },
  { name: 'far beyond the end', poke: [VDI_MAP, 4, 0xfffffffd], says: /cBlocksAllocated is 2/ },
  { name: 'beyond the end', poke: [0x158, 4, VDI_DATA + 512], says: /reaches beyond the end/ },
]
for (const { name, poke, says } of misplaced) {
  test(`a block ${name} is refused`, async () => {
    await assert.rejects(vdi.audit(bytesSource(smallVdi(...VDI_BASE, poke))), { code: 'invalid-image', message: says })
  })
}

test('people are told of blocks that nothing uses', async () => {
  const file = smallVdi(...VDI_BASE, [VDI_MAP, 4, 0xffffffff])
  assert.match((await vdi.audit(bytesSource(file))).join(), /1 blocks of the file are used by no part/)
})
