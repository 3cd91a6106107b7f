import assert from 'node:assert/strict'
import { open, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertExtentsAreTrue, digestOf, patterned, randomDisk, writeSource } from '../../../../test/fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource, type Piece } from '../../block/memory-source.ts'
import type { StreamWriter } from '../format-driver.ts'
import { packDisk } from './pack.ts'
import { qcow2 } from './qcow2.ts'

const KiB = 1024
const MiB = 1024 * KiB
const skip = lacking('qemu-img')
const compressions = ['zlib', 'zstd'] as const

const streamed = async (disk: BlockSource, compression: 'zlib' | 'zstd'): Promise<Buffer> =>
  Buffer.concat(await Array.fromAsync(packDisk(disk, compression)))

/** Clusters of every kind, one after another and mixed within one: text, noise, zeros that are stored, holes. */
function mixedDisk(size: number, seed: number): BlockSource {
  const pieces: Piece[] = []
  for (let at = 0, index = seed; at + 200 * KiB < size; index += 1) {
    const length = [64, 8, 130, 1, 64, 200][index % 6]! * KiB
    const kind = index % 5
    if (kind < 4)
      pieces.push({ offset: at, bytes: kind < 2 ? patterned(length, index, kind ? 'text' : 'random') : new Uint8Array(length) })
    if (kind === 3) pieces.at(-1)!.bytes.set(patterned(length / 2, index, 'text'))
    at += length
  }
  return memorySource(size, pieces)
}

for (const compression of compressions) {
  test(`qemu-img checks and compares what we compress: ${compression}`, { skip }, async (t) => {
    const path = await scratch(t)
    const disks = [0, 512, 70_000, 4 * MiB + 512, 9 * MiB].map((size, index) => mixedDisk(size, index))
    for (const disk of [...disks, randomDisk(1500 * MiB, 14, 3)]) {
      await writeSource(disk, path('raw'))
      await writeFile(path('qcow2'), packDisk(checked(disk, 'disk'), compression))
      await run('qemu-img', 'check', '-q', '-f', 'qcow2', path('qcow2'))
      await run('qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', path('raw'), path('qcow2'))
      const info = JSON.parse(await run('qemu-img', 'info', '--output=json', path('qcow2')))
      assert.equal(info['format-specific'].data['compression-type'], compression)
      assert.equal(info['virtual-size'], Math.ceil(disk.size / 512) * 512)

      const file = checked(await openFileSource(path('qcow2')), 'file')
      assert.deepEqual(await qcow2.audit(file), [])
      const again = checked(await qcow2.open(file), 'qcow2')
      const padded = memorySource(again.size, [{ offset: 0, bytes: await disk.read(0, Math.min(disk.size, 10 * MiB)) }])
      if (disk.size < 10 * MiB) assert.equal(await digestOf(again), await digestOf(padded))
      await assertExtentsAreTrue(again)
      await again.close()
    }
  })

  test(`a file that is rewritten is the same as the stream: ${compression}`, async (t) => {
    const path = await scratch(t)
    const disk = mixedDisk(6 * MiB, 2)
    const file = await open(path('qcow2'), 'w+')
    const rewritten: number[] = []
    let at = 0
    const rewrite = async (offset: number, bytes: Uint8Array) => {
      rewritten.push(offset, bytes.length)
      await file.write(bytes, 0, bytes.length, offset)
    }
    for await (const bytes of packDisk(disk, compression, { rewrite })) {
      await file.write(bytes, 0, bytes.length, at)
      at += bytes.length
    }
    const stream = await streamed(disk, compression)
    assert.ok(stream.equals(await file.readFile()), 'the same bytes')
    assert.deepEqual(rewritten, [0, 65536], 'the header, once')
    assert.ok(stream.equals(await streamed(mixedDisk(6 * MiB, 2), compression)), 'every time')
    await file.close()
  })

  test(`what does not compress is stored as it is, and zeros not at all: ${compression}`, async () => {
    const noise = await streamed(bytesSource(patterned(4 * MiB, 1)), compression)
    assert.equal(noise.length, 4 * MiB + 5 * 64 * KiB, 'header, L2, L1, refcount block, refcount table')
    const zeros = await streamed(bytesSource(new Uint8Array(4 * MiB)), compression)
    assert.equal(zeros.length, 5 * 64 * KiB)
    const disk = await qcow2.open(bytesSource(zeros))
    assert.deepEqual(await Array.fromAsync(disk.extents(0, disk.size)), [{ offset: 0, length: 4 * MiB, kind: 'zero' }])
  })

  test(`a sparse disk of 16 TiB is compressed: ${compression}`, async () => {
    const ends = [0, 2 ** 39 + 512, 2 ** 44 - 4096].map((offset, seed) => ({ offset, bytes: patterned(4096, seed, 'text') }))
    const file = bytesSource(await streamed(memorySource(2 ** 44, ends), compression))
    assert.ok(file.size < 2 * MiB)
    assert.deepEqual(await qcow2.audit(file), [])
    const disk = await qcow2.open(file)
    for (const { offset, bytes } of ends) assert.deepEqual(Buffer.from(await disk.read(offset, 4096)), Buffer.from(bytes))
  })

  test(`any disk goes in compressed and comes out: ${compression}`, async () => {
    const property = fc.asyncProperty(fc.nat(20_000), fc.nat(10), fc.nat(), async (sectors, pieces, seed) => {
      const disk = checked(randomDisk(sectors * 512, pieces, seed), 'disk')
      const file = checked(bytesSource(await streamed(disk, compression)), 'file')
      assert.deepEqual(await qcow2.audit(file), [])
      const again = checked(await qcow2.open(file), 'qcow2')
      assert.deepEqual(await again.read(0, again.size), await disk.read(0, disk.size))
    })
    await fc.assert(property, { numRuns: 40 })
  })
}

test('plain clusters do not tear holes into a compressed file', async () => {
  const clusters = Array.from({ length: 128 }, (_, index) => patterned(64 * KiB, index, index % 2 ? 'random' : 'text'))
  const file = await streamed(bytesSource(Buffer.concat(clusters)), 'zlib')
  assert.ok(file.length < (64 + 5 + 4) * 64 * KiB, `${file.length} bytes hold 64 clusters of noise, and text`)
})

test('compressing ends when it is told to', async () => {
  const stop = new AbortController()
  const parts = packDisk(mixedDisk(8 * MiB, 1), 'zstd', { signal: stop.signal, rewrite: async () => {} })
  await parts.next()
  await parts.next()
  stop.abort(new Error('enough'))
  await assert.rejects(Array.fromAsync(parts), /enough/)
})

test('a disk that changes meanwhile is no file', async () => {
  let reads = 0
  const disk: BlockSource = {
    ...memorySource(MiB, [{ offset: 0, bytes: new Uint8Array(MiB) }]),
    async read(_, length) {
      reads += 1
      return patterned(length, reads, reads > 2 ? 'random' : 'text')
    },
  }
  await assert.rejects(streamed(disk, 'zlib'), { code: 'corrupt' })
})

test('the second reader knows what we compress', { skip: lacking('qcowinfo') }, async (t) => {
  const path = await scratch(t)
  await writeFile(path('qcow2'), packDisk(mixedDisk(5 * MiB, 1), 'zlib'))
  assert.match(await run('qcowinfo', path('qcow2')), /5\.0 MiB \(5242880 bytes\)/)
})

test('writers are found by their names', () => {
  assert.deepEqual(
    qcow2.writers.map(({ subformat }) => subformat),
    ['plain', 'zstd', 'zlib'],
  )
  assert.ok((qcow2.writers[1] as StreamWriter).pack(memorySource(0, [])))
})
