import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { type BlockSource, type Extent, stack } from '../block/block-source.ts'
import { checked } from '../block/checked.ts'
import { bytesSource, memorySource } from '../block/memory-source.ts'
import { layer } from './layer.ts'
import { sized } from './sized.ts'

const SIZE = 256 * 1024
const whole = (disk: BlockSource) => disk.read(0, disk.size)

/** A layer by its runs, front to back, over the whole disk: what it has is the byte `fill`. */
function layerOf(
  runs: readonly { readonly length: number; readonly kind: Extent['kind']; readonly fill: number }[],
): BlockSource {
  const placed: (Extent & { readonly fill: number })[] = []
  let at = 0
  for (const { length, kind, fill } of runs) {
    const fitting = Math.min(length, SIZE - at)
    if (fitting > 0) placed.push({ offset: at, length: fitting, kind, fill })
    at += fitting
  }
  if (at < SIZE) placed.push({ offset: at, length: SIZE - at, kind: 'hole', fill: 0 })
  const pieces = placed.map(({ offset, length, kind, fill }) => ({
    offset,
    bytes: new Uint8Array(length).fill(kind === 'data' ? fill : 0),
  }))
  return {
    ...memorySource(SIZE, pieces),
    async *extents(offset, length) {
      for (const run of placed) {
        const [from, to] = [Math.max(offset, run.offset), Math.min(offset + length, run.offset + run.length)]
        if (from < to) yield { offset: from, length: to - from, kind: run.kind }
      }
    },
  }
}

const runs = fc.array(
  fc.record({
    length: fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: SIZE })),
    kind: fc.constantFrom('data', 'zero', 'hole'),
    fill: fc.integer({ min: 1, max: 255 }),
  }),
  { maxLength: 8 },
)

test('layers on a disk read as what was written last, extents too', async () => {
  const base = randomDisk(SIZE, 8, 5)
  const property = fc.asyncProperty(fc.array(runs, { maxLength: 4 }), fc.nat(SIZE), fc.nat(SIZE), async (layers, from, count) => {
    const model = Uint8Array.from(await whole(base))
    const made = layers.map(layerOf)
    for (const each of made) {
      for await (const { offset, length, kind } of each.extents(0, SIZE)) {
        if (kind !== 'hole') model.set(await each.read(offset, length), offset)
      }
    }
    const disk = checked(stack(base, made.map(layer)), 'layers')
    const length = Math.min(count, SIZE - from)
    const expected = model.subarray(from, from + length)
    assert.equal(Buffer.compare(await disk.read(from, length), expected), 0)
    assert.equal(Buffer.compare(await disk.read(from, length, new Uint8Array(length)), expected), 0)
    for (const extent of await Array.fromAsync(disk.extents(from, length))) {
      const bytes = model.subarray(extent.offset, extent.offset + extent.length)
      if (extent.kind !== 'data') assert.ok(bytes.every((byte) => byte === 0))
    }
  })
  await fc.assert(property, { numRuns: 60 })
})

test('a layer of another size is refused', () => {
  assert.throws(() => layer(bytesSource(new Uint8Array(5)))(bytesSource(new Uint8Array(6))), /lies on a disk/)
})

test('a disk of another size is cut off, or has a hole behind its end', async () => {
  const base = randomDisk(SIZE, 8, 6)
  const bytes = await whole(base)
  const property = fc.asyncProperty(fc.nat(2 * SIZE), fc.nat(2 * SIZE), fc.nat(2 * SIZE), async (size, from, count) => {
    const model = new Uint8Array(size)
    model.set(bytes.subarray(0, size))
    const disk = checked(sized(size)(base), 'sized')
    const offset = Math.min(from, size)
    const length = Math.min(count, size - offset)
    const expected = model.subarray(offset, offset + length)
    assert.equal(Buffer.compare(await disk.read(offset, length), expected), 0)
    const into = new Uint8Array(length).fill(9)
    assert.equal(Buffer.compare(await disk.read(offset, length, into), expected), 0)
    for (const extent of await Array.fromAsync(disk.extents(offset, length))) {
      if (extent.kind === 'data') continue
      assert.ok(model.subarray(extent.offset, extent.offset + extent.length).every((byte) => byte === 0))
    }
  })
  await fc.assert(property, { numRuns: 60 })
})
