import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { bytesSource, memorySource } from '../../disk/block/memory-source.ts'
import { sized } from '../../disk/filters/sized.ts'
import type { ScratchDisk } from './layered-disk.ts'
import { currentBootId } from './live-map.ts'
import { ScratchDisks } from './scratch-disks.ts'

const BLOCK = 65_536
const SIZE = 5 * BLOCK + 900
const place = () => {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-layers-'))
  return { folder, remove: () => rmSync(folder, { recursive: true }) }
}
const baseBytes = (): Buffer => Buffer.alloc(SIZE, 0).fill(7, 0, 2 * BLOCK + 50)
async function made(t: TestContext, size = SIZE) {
  const { folder, remove } = place()
  t.after(remove)
  const disks = await ScratchDisks.at(folder)
  const id = randomUUID()
  await disks.create(id, size, async () => undefined)
  return { disks, id, files: () => readdirSync(join(folder, id)).sort(), folder: join(folder, id) }
}
const contentOf = async (disk: BlockSource) => Buffer.from(await disk.read(0, disk.size))

type Step =
  | { readonly what: 'write' | 'zero' | 'trim'; readonly offset: number; readonly length: number; readonly byte: number }
  | { readonly what: 'seal' | 'rebase' | 'reopen' }
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      what: fc.constantFrom('write' as const, 'zero' as const, 'trim' as const),
      offset: fc.nat(SIZE - 1),
      length: fc.nat(2 * BLOCK),
      byte: fc.integer({ min: 1, max: 255 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ what: fc.constantFrom('seal' as const, 'rebase' as const, 'reopen' as const) }) },
)

test('whatever is written, sealed, rebased and opened again: it reads as a plain array does, now and as of each seal', async () => {
  const property = fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
    const { folder, remove } = place()
    try {
      const disks = await ScratchDisks.at(folder)
      const id = randomUUID()
      await disks.create(id, SIZE, async () => undefined)
      let base: Buffer = baseBytes()
      const model = Buffer.from(base)
      const sealed = new Map<number, Buffer>()
      let disk = await disks.open(id, bytesSource(base))
      for (const one of steps) {
        if (one.what === 'seal') sealed.set(await disk.seal(), Buffer.from(model))
        else if (one.what === 'reopen') {
          await disk.close()
          disk = await disks.open(id, bytesSource(base))
        } else if (one.what === 'rebase') {
          const [layer] = [...sealed.keys()].slice(-2)
          if (layer === undefined) continue
          base = sealed.get(layer)!
          await disk.rebase(layer, bytesSource(base))
          for (const number of [...sealed.keys()]) if (number <= layer) sealed.delete(number)
        } else if ('offset' in one) await change(disk, model, one)
        assert.deepEqual(disk.layers.slice(0, -1), [...sealed.keys()])
        assert.ok(model.equals(await contentOf(disk)))
        for (const [layer, bytes] of sealed) {
          assert.ok(bytes.equals(await contentOf(disk.asOf(layer))), `as of ${layer}`)
          await assertCovered(disk, layer, base, bytes)
        }
      }
      await disk.close()
    } finally {
      remove()
    }
  })
  await fc.assert(property, { numRuns: 60 })
})

async function change(disk: ScratchDisk, model: Buffer, { what, offset, byte, ...one }: Extract<Step, { offset: number }>) {
  const length = Math.min(one.length, SIZE - offset)
  const end = offset + length
  if (what === 'write') {
    await disk.write(offset, Buffer.alloc(length, byte))
    model.fill(byte, offset, end)
  } else if (what === 'zero') {
    await disk.writeZeroes(offset, length, true)
    model.fill(0, offset, end)
  } else {
    await disk.trim(offset, length)
    const [from, to] = [Math.ceil(offset / BLOCK) * BLOCK, end === SIZE ? SIZE : Math.floor(end / BLOCK) * BLOCK]
    if (from < to) model.fill(0, from, to)
  }
}

/** Ranges ascend and do not touch what they need not; outside them the disk is as its base. */
async function assertCovered(disk: ScratchDisk, layer: number, base: Buffer, bytes: Buffer): Promise<void> {
  let at = 0
  for await (const { offset, length } of disk.changedUpTo(layer)) {
    assert.ok(offset >= at && length > 0 && offset % BLOCK === 0 && offset + length <= SIZE)
    assert.ok(bytes.subarray(at, offset).equals(base.subarray(at, offset)))
    at = offset + length
  }
  assert.ok(bytes.subarray(at).equals(base.subarray(at)))
}

test('who writes while it is sealed is in one half, and in one half only', async (t) => {
  const { disks, id } = await made(t)
  const disk = await disks.open(id, bytesSource(baseBytes()))
  for (let round = 1; round <= 20; round += 1) {
    const writes = Array.from({ length: 40 }, (_, n) => disk.write(n * 8192, Buffer.alloc(8192, round)))
    const sealing = disk.seal()
    const during = disk.read(0, SIZE)
    await Promise.all([...writes, during])
    const layer = await sealing
    const then = await contentOf(disk.asOf(layer))
    for (let n = 0; n < 40; n += 1) {
      const first = then[n * 8192]!
      assert.ok(
        then.subarray(n * 8192, (n + 1) * 8192).every((byte) => byte === first),
        'a write is whole, or not there',
      )
    }
    assert.ok((await contentOf(disk)).subarray(0, 40 * 8192).every((byte) => byte === round))
    await disk.rebase(layer, bytesSource(then))
  }
  await disk.close()
})
test('a rebase leaves the files of the layers above, and waits for whoever reads what was below', async (t) => {
  const { disks, id, files } = await made(t)
  let isClosed = false
  const { promise: gate, resolve: open } = Promise.withResolvers<void>()
  const slow = {
    ...bytesSource(baseBytes()),
    read: async (offset: number, length: number) => {
      await gate
      assert.ok(!isClosed, 'read after it was closed')
      return baseBytes().subarray(offset, offset + length)
    },
    close: async () => {
      isClosed = true
    },
  }
  const disk = await disks.open(id, slow)
  await disk.write(0, Buffer.alloc(BLOCK, 1))
  const first = await disk.seal()
  await disk.write(BLOCK, Buffer.alloc(BLOCK, 2))
  const second = await disk.seal()
  assert.deepEqual(files(), ['disk', 'disk.1', 'disk.2', 'live', 'live.1', 'live.2', 'map', 'map.1', 'map.2'])
  const reading = disk.read(3 * BLOCK, 10)
  const rebased = disk.rebase(second, memorySource(SIZE, [{ offset: 0, bytes: Buffer.alloc(BLOCK, 9) }]))
  open()
  assert.deepEqual([...(await reading)], [...baseBytes().subarray(3 * BLOCK, 3 * BLOCK + 10)])
  await rebased
  assert.ok(isClosed)
  assert.deepEqual(files(), ['disk.2', 'live.2', 'map.2'])
  assert.equal((await disk.read(0, 1))[0], 9)
  assert.throws(() => disk.asOf(first), /no sealed layer/)
  await disk.close()
})

test('a layer whose making was cut short is not there; so many may be there at once', async (t) => {
  const { disks, id, folder, files } = await made(t)
  writeFileSync(join(folder, 'disk.1'), 'left over')
  writeFileSync(join(folder, 'map.1.new'), 'half')
  // a map of a layer that went, of this very start of the system, which says that a block is there
  const live = Buffer.alloc(8192)
  live.write(`IMPSCRTL${currentBootId()}`)
  live[4096] = 1
  writeFileSync(join(folder, 'live.1'), live)
  const disk = await disks.open(id, bytesSource(baseBytes()))
  assert.deepEqual(disk.layers, [0])
  await disk.seal()
  assert.deepEqual([...(await disk.read(0, 10))], [...baseBytes().subarray(0, 10)])
  for (let layers = 2; layers < 32; layers += 1) await disk.seal()
  await assert.rejects(disk.seal(), { code: 'unavailable', message: /32 layers/ })
  await disk.write(0, Uint8Array.of(3))
  assert.equal((await disk.read(0, 1))[0], 3)
  await disk.close()
  assert.equal(files().filter((name) => name.startsWith('map')).length, 32)
})

test('a disk of whole blocks may have grown when it is opened again, in all its layers', async (t) => {
  const { disks, id } = await made(t, 2 * BLOCK)
  const small = memorySource(2 * BLOCK, [{ offset: 0, bytes: Buffer.alloc(BLOCK, 4) }])
  let disk = await disks.open(id, small)
  await disk.write(BLOCK, Buffer.alloc(100, 5))
  await disk.seal()
  await disk.close()
  disk = await disks.open(id, sized(9 * BLOCK)(small))
  assert.deepEqual([(await disk.read(0, 1))[0], (await disk.read(BLOCK, 1))[0]], [4, 5])
  assert.ok((await disk.read(2 * BLOCK, 7 * BLOCK)).every((byte) => byte === 0))
  await disk.write(8 * BLOCK, Buffer.alloc(BLOCK, 6))
  await disk.close()
  disk = await disks.open(id, sized(9 * BLOCK)(small))
  assert.equal((await disk.read(9 * BLOCK - 1, 1))[0], 6)
  await disk.close()
  await assert.rejects(disks.open(id, memorySource(BLOCK, [])), { code: 'corrupt' })
})
