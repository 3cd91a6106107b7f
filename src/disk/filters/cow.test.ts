import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { BlockSource, Extent } from '../block/block-source.ts'
import { memorySource } from '../block/memory-source.ts'
import { BLOCK, BlockMap, isBlockMap, MAP_PAGE_BYTES, mapBytes } from './block-map.ts'
import { COW_BLOCK_BYTES as BLOCK_BYTES, blocksOfDisk, copyOnWrite, type Overlay } from './cow.ts'

/** Blocks and their map in memory, with what a crash leaves: the bytes of any write, the map of the last sync. */
class MemoryOverlay implements Overlay {
  readonly bytes: Uint8Array
  map: BlockMap
  durable: Uint8Array
  syncs = 0
  isClosed = false
  /** Asked before each access: turns of the event loop to wait. */
  turns = () => 0

  constructor(size: number) {
    this.bytes = new Uint8Array(size).fill(0xdd) // what a reader must never see
    this.map = new BlockMap(blocksOfDisk(size))
    this.durable = new Uint8Array(mapBytes(blocksOfDisk(size)))
  }
  async #wait(): Promise<void> {
    for (let left = this.turns(); left > 0; left -= 1) await new Promise(setImmediate)
  }
  async read(offset: number, length: number, into = new Uint8Array(length)): Promise<Uint8Array> {
    await this.#wait()
    into.set(this.bytes.subarray(offset, offset + length))
    await this.#wait()
    return into
  }
  async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
    await this.#wait()
    let at = offset
    for (const part of parts) {
      this.bytes.set(part, at)
      at += part.length
    }
    assert.ok(at <= this.bytes.length, 'nothing is written beyond the end')
    await this.#wait()
  }
  async note(): Promise<void> {
    await this.#wait()
  }
  async sync(): Promise<void> {
    const pages = this.map.takeChanged()
    this.syncs += 1
    await this.#wait()
    for (const { page, bytes } of pages) this.durable.set(bytes, page * MAP_PAGE_BYTES)
  }
  crash(): void {
    assert.ok(isBlockMap(this.durable))
    this.map = new BlockMap(this.map.blocks, this.durable.slice())
  }
  async close(): Promise<void> {
    this.isClosed = true
  }
}

const SIZE = 5 * BLOCK_BYTES + 1234
const baseBytes = new Uint8Array(SIZE)
for (let at = 0; at < 2 * BLOCK_BYTES + 777; at += 1) baseBytes[at] = 1 + (at % 251)
/** Data, a hole, and data again in the last block, which is short. */
const newBase = (): BlockSource =>
  memorySource(SIZE, [
    { offset: 0, bytes: baseBytes.subarray(0, 2 * BLOCK_BYTES + 777) },
    { offset: 5 * BLOCK_BYTES, bytes: baseBytes.fill(9, 5 * BLOCK_BYTES).subarray(5 * BLOCK_BYTES) },
  ])

type Step =
  | { readonly what: 'write' | 'zero' | 'punch' | 'trim' | 'read'; readonly offset: number; readonly length: number }
  | { readonly what: 'flush' | 'crash' }
const edges = [0, 1, 512, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, SIZE - 1, SIZE]
const place = fc.oneof(fc.constantFrom(...edges), fc.nat(SIZE))
const range = fc.tuple(place, place).map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }))
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .record({
        what: fc.constantFrom('write' as const, 'zero' as const, 'punch' as const, 'trim' as const, 'read' as const),
        range,
      })
      .map(({ what, range: at }) => ({ what, ...at })),
  },
  { weight: 1, arbitrary: fc.constantFrom({ what: 'flush' as const }, { what: 'crash' as const }) },
)

test('whatever is written, zeroed and trimmed, it reads as a plain array of bytes would', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const overlay = new MemoryOverlay(SIZE)
      const disk = copyOnWrite(newBase(), overlay)
      const model = baseBytes.slice()
      for (const [seed, one] of steps.entries()) {
        if (one.what === 'flush') await disk.flush()
        if (!('offset' in one)) continue
        const { offset, length } = one
        const part = model.subarray(offset, offset + length)
        if (one.what === 'read') assert.deepEqual(Buffer.from(await disk.read(offset, length)), Buffer.from(part))
        if (one.what === 'write') await disk.write(offset, part.fill(100 + seed).slice())
        if (one.what === 'zero' || one.what === 'punch') {
          part.fill(0)
          await disk.writeZeroes(offset, length, one.what === 'punch')
        }
        if (one.what === 'trim') {
          await disk.trim(offset, length)
          const now = await disk.read(offset, length) // its choice, but the same ever after
          for (const [at, byte] of now.entries()) assert.ok(byte === 0 || byte === part[at])
          part.set(now)
        }
      }
      assert.ok(Buffer.from(await disk.read(0, SIZE)).equals(model))
      await assertExtents(disk, model)
    }),
    { numRuns: 150 },
  )
})

/** They cover the disk without a gap, no two neighbours are alike, and what they call a hole reads as zeros. */
async function assertExtents(disk: BlockSource, model: Uint8Array): Promise<void> {
  let before: Extent | undefined
  let at = 0
  for await (const extent of disk.extents(0, SIZE)) {
    assert.equal(extent.offset, at)
    assert.ok(extent.length > 0)
    assert.notEqual(before?.kind, extent.kind)
    at += extent.length
    if (extent.kind !== 'data') assert.ok(model.subarray(extent.offset, at).every((byte) => byte === 0))
    before = extent
  }
  assert.equal(at, SIZE)
}

/** Around every edge, and in between. */
const places = [...edges.flatMap((at) => [at, at + 1, Math.max(0, at - 1)]), ...Array.from({ length: 400 }, (_, n) => n * 821)]

test('after a crash what was flushed is there, and each other block is as it was at some time since', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const overlay = new MemoryOverlay(SIZE)
      let disk = copyOnWrite(newBase(), overlay)
      /** What each byte that is looked at may be after a crash: as it was flushed, and all that it was since. */
      const looked = places.map((at) => Math.min(at, SIZE - 1))
      const now = async () => {
        const bytes = await disk.read(0, SIZE)
        return looked.map((at) => bytes[at]!)
      }
      let since = (await now()).map((byte) => new Set([byte]))
      for (const [seed, one] of steps.entries()) {
        if (one.what === 'write') await disk.write(one.offset, new Uint8Array(one.length).fill(100 + seed))
        else if (one.what === 'zero' || one.what === 'punch') await disk.writeZeroes(one.offset, one.length, one.what === 'punch')
        else if (one.what === 'trim') await disk.trim(one.offset, one.length)
        else if (one.what === 'flush') await disk.flush()
        else if (one.what === 'crash') {
          overlay.crash()
          disk = copyOnWrite(newBase(), overlay)
        }
        const bytes = await now()
        if (one.what === 'crash')
          for (const [at, byte] of bytes.entries()) assert.ok(since[at]!.has(byte), `at ${looked[at]}: ${byte}`)
        if (one.what === 'crash' || one.what === 'flush') since = bytes.map((byte) => new Set([byte]))
        else for (const [at, byte] of bytes.entries()) since[at]!.add(byte)
      }
    }),
    { numRuns: 100 },
  )
})

test('calls that overlap in time leave each byte as one of them made it, and those apart lose nothing', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ what: fc.constantFrom('write' as const, 'punch' as const), range }), { minLength: 2, maxLength: 8 }),
      fc.infiniteStream(fc.nat(3)),
      async (calls, waits) => {
        const overlay = new MemoryOverlay(SIZE)
        overlay.turns = () => waits.next().value ?? 0
        const disk = copyOnWrite(newBase(), overlay)
        await Promise.all([
          ...calls.map(({ what, range: { offset, length } }, seed) =>
            what === 'write'
              ? disk.write(offset, new Uint8Array(length).fill(100 + seed))
              : disk.writeZeroes(offset, length, true),
          ),
          disk.flush(),
        ])
        const bytes = await disk.read(0, SIZE)
        for (let at = 0; at < SIZE; at += 97) {
          const touching = calls.flatMap(({ what, range: { offset, length } }, seed) =>
            at >= offset && at < offset + length ? [what === 'write' ? 100 + seed : 0] : [],
          )
          const may = touching.length > 0 ? touching : [baseBytes[at]!]
          assert.ok(may.includes(bytes[at]!), `at ${at}: ${bytes[at]} is none of ${may}`)
        }
      },
    ),
    { numRuns: 60 },
  )
})

test('a flush covers the calls that settled before it, and those that come meanwhile share the next', async () => {
  const overlay = new MemoryOverlay(SIZE)
  overlay.turns = () => 2
  const disk = copyOnWrite(newBase(), overlay)
  await disk.write(0, Uint8Array.of(7))
  const first = disk.flush()
  await new Promise(setImmediate) // it runs
  await disk.write(BLOCK_BYTES, Uint8Array.of(8))
  const [second, third] = [disk.flush(), disk.flush()]
  await Promise.all([first, second, third])
  assert.ok(overlay.syncs <= 2, `${overlay.syncs} syncs`)
  overlay.crash()
  const after = copyOnWrite(newBase(), overlay)
  assert.deepEqual([(await after.read(0, 1))[0], (await after.read(BLOCK_BYTES, 1))[0]], [7, 8])
})

test('a flush that fails is told to those who asked, and closing lets go of both all the same', async () => {
  const overlay = new MemoryOverlay(SIZE)
  let isBaseClosed = false
  const base: BlockSource = {
    ...newBase(),
    close: async () => {
      isBaseClosed = true
    },
  }
  const disk = copyOnWrite(base, overlay)
  overlay.sync = async () => {
    throw Object.assign(new Error('no'), { code: 'EIO' })
  }
  await assert.rejects(disk.flush(), { code: 'EIO' })
  await assert.rejects(disk.close(), { code: 'EIO' })
  assert.deepEqual([overlay.isClosed, isBaseClosed], [true, true])
})

test('clearing gigabytes leaves others their turn', async () => {
  const size = 2 ** 33
  const overlay = new MemoryOverlay(0)
  overlay.map = new BlockMap(blocksOfDisk(size))
  const disk = copyOnWrite(memorySource(size, []), overlay)
  for (const clear of [() => disk.trim(0, 2 ** 32), () => disk.writeZeroes(0, 2 ** 32, true)]) {
    let turns = 0
    let isOver = false
    const count = () => {
      turns += 1
      if (!isOver) setImmediate(count)
    }
    setImmediate(count)
    await clear()
    isOver = true
    assert.ok(turns >= 32, `${turns} turns`)
  }
})

test('a write that fails leaves the block as it was', async () => {
  const overlay = new MemoryOverlay(SIZE)
  const disk = copyOnWrite(newBase(), overlay)
  const { write } = overlay
  overlay.write = async () => {
    overlay.bytes.fill(0x66) // half of it was written
    throw Object.assign(new Error('full'), { code: 'ENOSPC' })
  }
  await assert.rejects(disk.write(100, Uint8Array.of(1, 2, 3)), { code: 'ENOSPC' })
  assert.ok(Buffer.from(await disk.read(0, SIZE)).equals(baseBytes))
  overlay.write = write
  await disk.write(100, Uint8Array.of(1, 2, 3))
  assert.deepEqual([...(await disk.read(99, 5))], [baseBytes[99], 1, 2, 3, baseBytes[103]])
})

test('the map keeps two bits a block, and tells which of its pages changed', () => {
  const map = new BlockMap(40_000)
  assert.equal(mapBytes(40_000), 3 * MAP_PAGE_BYTES)
  map.set(3, 9, BLOCK.data)
  map.set(20_000, 20_001, BLOCK.zero)
  assert.deepEqual([map.get(2), map.get(3), map.get(8), map.get(9), map.get(20_000)], [0, 1, 1, 0, 2])
  assert.deepEqual([map.runEnd(3, 40_000), map.runEnd(3, 5), map.runEnd(9, 40_000)], [9, 5, 20_000])
  const changed = map.takeChanged()
  assert.deepEqual(
    changed.map(({ page }) => page),
    [0, 1],
  )
  assert.deepEqual([...changed[0]!.bytes.subarray(0, 3)], [0b01_00_00_00, 0b01_01_01_01, 0b00_00_00_01])
  assert.deepEqual(map.takeChanged(), [])
  map.set(3, 4, BLOCK.data)
  assert.deepEqual(map.takeChanged(), [], 'nothing is new')
  assert.equal(isBlockMap(Uint8Array.of(0b10_01_00_10)), true)
  for (const shift of [0, 2, 4, 6]) assert.equal(isBlockMap(Uint8Array.of(3 << shift)), false)
})
