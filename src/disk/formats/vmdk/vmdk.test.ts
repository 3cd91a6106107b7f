import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertExtentsAreTrue, digestOf, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import { packDisk } from './pack.ts'
import { vmdk } from './vmdk.ts'
import { wrapDisk } from './wrap.ts'

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB
const skip = lacking('qemu-img')
/** vmdkmount shows a file system of its own, which not every place allows. */
const skipMount = lacking('vmdkmount', 'umount') || (process.getuid?.() === 0 ? false : 'not allowed: vmdkmount')

const packed = async (disk: BlockSource): Promise<Uint8Array> => Buffer.concat(await Array.fromAsync(packDisk(disk)))

const assertSame = async (a: BlockSource, b: BlockSource, offset: number, length: number): Promise<void> => {
  assert.ok(Buffer.from(await a.read(offset, length)).equals(await b.read(offset, length)), `${length} bytes from ${offset}`)
}

/** Opens a file of one's own making; closed when the test is over. */
const openedFile = async (path: string): Promise<BlockSource> => checked(await openFileSource(path), 'file')

const opened = async (path: string): Promise<BlockSource> => {
  const file = await openedFile(path)
  assert.deepEqual(await vmdk.audit(file), [])
  return checked(await vmdk.open(file), 'vmdk')
}

const alone = [
  'monolithicSparse',
  'streamOptimized',
  'monolithicSparse,zeroed_grain=on',
  'monolithicSparse,compat6',
  'monolithicSparse,adapter_type=lsilogic',
]
for (const subformat of alone) {
  test(`vmdk reads what qemu-img reads: ${subformat}`, { skip }, async (t) => {
    const path = await scratch(t)
    for (const [index, size] of [512, 64 * KiB, 5 * MiB + 512, 90 * MiB].entries()) {
      await writeSource(randomDisk(size, 12, index), path('raw'))
      await run('qemu-img', 'convert', '-O', 'vmdk', '-o', `subformat=${subformat}`, path('raw'), path('vmdk'))
      await run('qemu-img', 'convert', '-O', 'raw', path('vmdk'), path('back'))
      const read = await opened(path('vmdk'))
      const back = await openedFile(path('back'))
      assert.equal(read.size, back.size)
      const expected = await digestOf(back)
      assert.equal(await digestOf(read), expected)
      if (size < 10 * MiB) assert.equal(await digestOf(read, 27 * KiB), expected, 'in steps that cross grains')
      await assertExtentsAreTrue(read)
      await Promise.all([read.close(), back.close()])
    }
  })
}

const inParts = [
  { subformat: 'monolithicFlat', names: ['disk-flat.vmdk'] },
  { subformat: 'twoGbMaxExtentFlat', names: ['disk-f001.vmdk', 'disk-f002.vmdk', 'disk-f003.vmdk'] },
  { subformat: 'twoGbMaxExtentSparse', names: ['disk-s001.vmdk', 'disk-s002.vmdk', 'disk-s003.vmdk'] },
]
for (const { subformat, names } of inParts) {
  test(`vmdk reads what qemu-img reads, all parts given: ${subformat}`, { skip }, async (t) => {
    const path = await scratch(t)
    const disk = randomDisk(4.5 * GiB, 30, 8)
    await writeSource(disk, path('raw'))
    await run('qemu-img', 'convert', '-O', 'vmdk', '-o', `subformat=${subformat}`, path('raw'), path('disk.vmdk'))
    const parts = new Map(await Promise.all(names.map(async (name) => [name, await openedFile(path(name))] as const)))
    const file = await openedFile(path('disk.vmdk'))
    for (const name of names) {
      const others = new Map([...parts].filter(([other]) => other !== name))
      await assert.rejects(vmdk.open(file, { parts: others }), {
        code: 'invalid-image',
        message: new RegExp(`"${name}" must be given`),
      })
    }
    await assert.rejects(vmdk.open(file), { code: 'invalid-image', message: /must be given/ })
    assert.deepEqual(await vmdk.audit(file, { parts }), [])
    const read = checked(await vmdk.open(file, { parts }), 'vmdk')
    assert.equal(read.size, disk.size)
    let dataBytes = 0
    for await (const { kind, offset, length } of read.extents(0, read.size)) {
      if (kind !== 'data') continue
      dataBytes += length
      await assertSame(read, disk, offset, length)
    }
    assert.ok(dataBytes < 40 * MiB, 'holes stay holes')
    for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
      if (kind === 'data') await assertSame(read, disk, offset, length)
    }
    const [seam, span] = [2 * GiB - 100_000, 200_000] // across two extents
    await assertSame(read, disk, seam, span)
    await read.close()
    await assert.rejects(parts.get(names[0]!)!.read(0, 1), 'a part is closed with the disk')
  })
}

test('one sparse extent of a disk in parts is refused where it comes alone', { skip }, async (t) => {
  const path = await scratch(t)
  await run('qemu-img', 'create', '-q', '-f', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse', path('disk.vmdk'), '1M')
  const file = await openedFile(path('disk-s001.vmdk'))
  await assert.rejects(vmdk.open(file), { code: 'invalid-image', message: /one extent of a disk in several files/ })
  await file.close()
})

test('zeroed grains are zeros, and hide what the parent has', { skip }, async (t) => {
  const path = await scratch(t)
  const options = ['-q', '-f', 'vmdk', '-o', 'zeroed_grain=on']
  await run('qemu-img', 'create', ...options, path('base.vmdk'), '4M')
  await run('qemu-io', '-f', 'vmdk', '-c', 'write -P 7 0 4M', path('base.vmdk'))
  await run('qemu-img', 'create', ...options, '-b', path('base.vmdk'), '-F', 'vmdk', path('child.vmdk'), '6M')
  await run(
    'qemu-io',
    '-f',
    'vmdk',
    '-c',
    'write -z 1M 1M',
    '-c',
    'write -P 9 5M 64k',
    '-c',
    'write -P 5 0 4k',
    path('child.vmdk'),
  )
  await run('qemu-img', 'convert', '-O', 'raw', path('child.vmdk'), path('back'))
  const child = await openedFile(path('child.vmdk'))
  await assert.rejects(vmdk.open(child), { code: 'invalid-image', message: /a parent, which must be given/ })
  await assert.rejects(vmdk.audit(child), { code: 'invalid-image', message: /a parent, which must be given/ })
  const parent = await opened(path('base.vmdk'))
  const read = checked(await vmdk.open(child, { parent }), 'vmdk')
  const back = await openedFile(path('back'))
  assert.equal(await digestOf(read), await digestOf(back))
  await assertExtentsAreTrue(read)
  const kinds = (await Array.fromAsync(read.extents(0, read.size))).map(({ kind, length }) => `${kind} ${length / KiB}`)
  assert.deepEqual(kinds, ['data 1024', 'zero 1024', 'data 2048', 'hole 1024', 'data 64', 'hole 960'])
  const grandchild = await openedFile(path('base.vmdk'))
  await assert.rejects(vmdk.open(grandchild, { parent }), { code: 'invalid-image', message: /a parent is given/ })
  await Promise.all([read.close(), back.close(), grandchild.close()])
})

const sizes = [512, 64 * KiB, 5 * MiB + 1024, 90 * MiB, 5 * GiB]

test('qemu-img compares and maps the monolithicSparse files that we write', { skip }, async (t) => {
  const path = await scratch(t)
  for (const [index, size] of sizes.entries()) {
    const disk = randomDisk(size, 9, index)
    const file = checked(await wrapDisk(checked(disk, 'disk')), 'vmdk file')
    await writeSource(disk, path('raw'))
    await writeSource(file, path('vmdk'))
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'vmdk', path('raw'), path('vmdk'))
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', path('vmdk')))
    assert.equal(info['virtual-size'], size)
    assert.equal(info['format-specific'].data['create-type'], 'monolithicSparse')
    assert.deepEqual(await vmdk.audit(file), [])
    assert.deepEqual(await mappedData(path('vmdk')), await grainsWithData(disk))
  }
})

test('qemu-img compares and maps the streamOptimized files that we write', { skip }, async (t) => {
  const path = await scratch(t)
  for (const [index, size] of sizes.entries()) {
    const disk = randomDisk(size, 9, index)
    const bytes = await packed(checked(disk, 'disk'))
    await writeSource(disk, path('raw'))
    await writeFile(path('vmdk'), bytes)
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'vmdk', path('raw'), path('vmdk'))
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', path('vmdk')))
    assert.equal(info['virtual-size'], size)
    assert.equal(info['format-specific'].data['create-type'], 'streamOptimized')
    assert.deepEqual(await vmdk.audit(bytesSource(bytes)), [])
    assert.deepEqual(await mappedData(path('vmdk')), await grainsWithData(disk))
  }
})

/** Byte ranges that qemu-img says have data, joined. */
async function mappedData(path: string): Promise<readonly (readonly [number, number])[]> {
  const runs: { start: number; length: number; data: boolean }[] = JSON.parse(
    await run('qemu-img', 'map', '--output=json', '-f', 'vmdk', path),
  )
  return joined(runs.filter(({ data }) => data).map(({ start, length }) => [start, start + length]))
}
async function grainsWithData(disk: BlockSource): Promise<readonly (readonly [number, number])[]> {
  const grain = 64 * KiB
  const runs: [number, number][] = []
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    const to = Math.min(disk.size, Math.ceil((offset + length) / grain) * grain)
    if (kind === 'data') runs.push([Math.floor(offset / grain) * grain, to])
  }
  return joined(runs)
}
function joined(runs: readonly (readonly [number, number])[]): readonly (readonly [number, number])[] {
  const all: [number, number][] = []
  for (const [from, to] of runs) {
    const last = all.at(-1)
    if (last && from <= last[1]) last[1] = Math.max(last[1], to)
    else all.push([from, to])
  }
  return all
}

for (const form of ['monolithicSparse', 'streamOptimized'] as const) {
  test(`libvmdk reads the ${form} files that we write`, { skip: skipMount }, async (t) => {
    const path = await scratch(t)
    for (const [index, size] of [5 * MiB + 1024, 300 * MiB].entries()) {
      const disk = randomDisk(size, 9, index)
      /** It looks for the extent by the name in the descriptor. */
      if (form === 'streamOptimized') await writeFile(path('disk.vmdk'), await packed(disk))
      else await writeSource(await wrapDisk(disk), path('disk.vmdk'))
      assert.match(await run('vmdkinfo', path('disk.vmdk')), new RegExp(`\\(${size} bytes\\)`))
      await run('mkdir', '-p', path('seen'))
      await run('vmdkmount', path('disk.vmdk'), path('seen'))
      try {
        const seen = await openFileSource(path('seen/vmdk1'))
        assert.equal(seen.size, size)
        assert.equal(await digestOf(seen), await digestOf(disk))
        await seen.close()
      } finally {
        await run('umount', path('seen'))
      }
    }
  })
}

test('a disk of an odd size is padded to a sector', { skip }, async (t) => {
  const path = await scratch(t)
  const disk = memorySource(70_000, [{ offset: 0, bytes: new Uint8Array(70_000).fill(5) }])
  await writeSource(checked(await wrapDisk(disk), 'vmdk'), path('plain'))
  await writeFile(path('packed'), await packed(disk))
  for (const name of ['plain', 'packed']) {
    await run('qemu-img', 'convert', '-f', 'vmdk', '-O', 'raw', path(name), path('back'))
    const [read, back] = [await opened(path(name)), await openedFile(path('back'))]
    assert.equal(read.size, 70_144)
    assert.deepEqual([...(await read.read(69_999, 3))], [5, 0, 0])
    assert.equal(await digestOf(read), await digestOf(back))
    await Promise.all([read.close(), back.close()])
  }
})

test('open(wrap(disk)) and open(pack(disk)) read as the disk, and holes stay holes', async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 900_000_000 }),
    fc.integer({ min: 0, max: 12 }),
    fc.nat(),
    async (sectors, pieces, seed) => {
      const disk = checked(randomDisk(sectors * 512, pieces, seed), 'disk')
      for (const file of [await wrapDisk(disk), bytesSource(await packed(disk))]) {
        const again = checked(await vmdk.open(checked(file, 'vmdk file')), 'vmdk')
        assert.equal(again.size, disk.size)
        const grains: [number, number][] = []
        for await (const { kind, offset, length } of again.extents(0, again.size)) {
          if (kind !== 'data') continue
          grains.push([offset, offset + length])
          await assertSame(again, disk, offset, length)
        }
        assert.deepEqual(joined(grains), await grainsWithData(disk))
      }
    },
  )
  await fc.assert(property, { numRuns: 25 })
})

test('any range of a wrapped file is the same as in one read of all of it, and what it calls zeros is zeros', async () => {
  const file = checked(await wrapDisk(randomDisk(300 * MiB + 512, 6, 4)), 'vmdk file')
  const whole = await file.read(0, file.size)
  const property = fc.asyncProperty(fc.nat(file.size), fc.nat(200_000), async (from, length) => {
    const count = Math.min(length, file.size - from)
    assert.ok(Buffer.from(whole.subarray(from, from + count)).equals(await file.read(from, count)), `${count} bytes from ${from}`)
  })
  await fc.assert(property, { numRuns: 200 })
  await assertExtentsAreTrue(file)
})

test('a sparse disk of 16 TiB makes a file of little data, which is read again', async () => {
  const TiB = 1024 * GiB
  const disk = randomDisk(16 * TiB, 9, 12)
  const file = checked(await wrapDisk(disk), 'vmdk file')
  const again = checked(await vmdk.open(file), 'vmdk')
  assert.equal(again.size, 16 * TiB)
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    if (kind === 'data') await assertSame(again, disk, offset, length)
  }
  let dataBytes = 0
  for await (const { kind, length } of file.extents(0, file.size)) if (kind === 'data') dataBytes += length
  assert.ok(dataBytes < 12 * MiB, `${dataBytes} bytes of data, of which two directories are 4 MiB`)
})

test('writers say what a vmdk file cannot hold', async () => {
  for (const write of [wrapDisk, packed]) {
    await assert.rejects(write(memorySource(0, [])), { code: 'unsupported', message: /no bytes/ })
    await assert.rejects(write(memorySource(2 ** 46 + 1, [])), { code: 'too-large', message: /64 TiB/ })
  }
  const full: BlockSource = {
    ...memorySource(3 * 2 ** 40, []),
    async *extents(offset, length) {
      yield { offset, length, kind: 'data' }
    },
  }
  await assert.rejects(wrapDisk(full), { code: 'too-large', message: /2 TiB/ })
})

test('the same disk gives the same stream, and grains of zeros are left out', async () => {
  const bytes = new Uint8Array(2 * MiB).fill(3, MiB, MiB + 100)
  const [once, again] = [await packed(bytesSource(bytes)), await packed(bytesSource(bytes))]
  assert.deepEqual(once, again)
  const kinds = (await Array.fromAsync((await vmdk.open(bytesSource(once))).extents(0, 2 * MiB))).map(({ kind }) => kind)
  assert.deepEqual(kinds, ['hole', 'data', 'hole'])
})

test('a stream ends with the reason of its signal, and with the errors of its disk', async () => {
  const ended = new AbortController()
  const stream = packDisk(randomDisk(100 * MiB, 200, 5), { signal: ended.signal })
  await stream.next()
  await stream.next()
  ended.abort(new Error('enough'))
  await assert.rejects(Array.fromAsync(stream), { message: 'enough' })
  const failing: BlockSource = { ...randomDisk(10 * MiB, 9, 5), read: () => Promise.reject(new Error('no disk')) }
  await assert.rejects(packed(failing), { message: 'no disk' })
})

test('geometry is what VMware chooses by size, and ids follow from the layout', async () => {
  const textOf = async (disk: BlockSource) => Buffer.from(await (await wrapDisk(disk)).read(512, 20 * 512)).toString('latin1')
  const geometries = [
    { size: 4 * MiB, cylinders: 4, heads: 64, sectors: 32 },
    { size: GiB, cylinders: 1024, heads: 64, sectors: 32 },
    { size: GiB + 512, cylinders: 513, heads: 128, sectors: 32 },
    { size: 2 * GiB, cylinders: 1024, heads: 128, sectors: 32 },
    { size: 40 * GiB, cylinders: 5222, heads: 255, sectors: 63 },
    { size: 16 * 1024 * GiB, cylinders: 65_535, heads: 255, sectors: 63 },
  ]
  for (const { size, ...geometry } of geometries) {
    const text = await textOf(memorySource(size, []))
    for (const [name, value] of Object.entries(geometry))
      assert.match(text, new RegExp(`^ddb\\.geometry\\.${name} = "${value}"$`, 'm'))
    assert.match(text, /^ddb\.adapterType = "lsilogic"$/m)
  }
  const cidOf = async (disk: BlockSource) => /^CID=([0-9a-f]{8})$/m.exec(await textOf(disk))?.[1]
  const cids = await Promise.all(
    [randomDisk(GiB, 5, 1), randomDisk(GiB, 5, 1), randomDisk(GiB, 5, 2), randomDisk(GiB + 512, 5, 1)].map(cidOf),
  )
  assert.equal(cids[0], cids[1])
  assert.equal(new Set(cids).size, 3)
})
