import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { bytesSource, memorySource } from '../../disk/block/memory-source.ts'
import { limitsFor } from './open-places.ts'
import { ScratchDisks } from './scratch-disks.ts'
import { createLayer, openLayer } from './scratch-file.ts'

const BLOCK = 65_536
async function place(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-scratch-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return { folder, disks: await ScratchDisks.at(folder) }
}
/** One that is made, and opened. */
async function made(disks: ScratchDisks, id: string, of = base()) {
  await disks.create(id, of.size, async () => undefined)
  return disks.open(id, of)
}
const base = () => bytesSource(new Uint8Array(10 * BLOCK).fill(1))

test('the folder is sparse: it takes what was written, at its place, and a page of map', async (t) => {
  const { folder, disks } = await place(t)
  const id = randomUUID()
  const disk = await made(disks, id, memorySource(2 ** 40, []))
  await disk.write(2 ** 39, Uint8Array.of(1, 2, 3))
  await disk.flush()
  const path = join(folder, id)
  assert.equal(statSync(path).mode & 0o777, 0o700)
  assert.equal(statSync(join(path, 'disk')).size, 2 ** 39 + BLOCK)
  const taken = readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).blocks * 512, 0)
  assert.ok(taken < 4 * BLOCK, `${taken} bytes`)
  await disk.close()
  const again = await disks.open(id, memorySource(2 ** 40, []))
  assert.deepEqual([...(await again.read(2 ** 39, 4))], [1, 2, 3, 0])
  await again.close()
})

test('what was answered and not flushed outlives the process, and not a start of the system', async (t) => {
  const { folder } = await place(t)
  const id = randomUUID()
  const first = await made(await ScratchDisks.at(folder, 'one start'), id)
  await first.write(5, Uint8Array.of(9)) // copied up
  await first.flush()
  await first.write(3 * BLOCK, new Uint8Array(BLOCK).fill(7))
  await first.writeZeroes(5 * BLOCK, BLOCK, true)
  await first.seal()
  await first.write(7 * BLOCK + 1, Uint8Array.of(8))
  const seen = async (bootId: string) => {
    const disk = await (await ScratchDisks.at(folder, bootId)).open(id, base()) // the first one is as good as dead
    const bytes = await Promise.all([5, 3 * BLOCK, 5 * BLOCK, 7 * BLOCK + 1].map(async (at) => (await disk.read(at, 1))[0]))
    return { bytes, disk }
  }
  assert.deepEqual((await seen('one start')).bytes, [9, 7, 0, 8])
  const { bytes, disk } = await seen('another start')
  assert.deepEqual(bytes, [9, 7, 0, 1], 'sealing had made the layer below durable, and nothing the one above')
  await disk.write(7 * BLOCK, Uint8Array.of(6))
  const { bytes: later, disk: last } = await seen('another start')
  assert.deepEqual([later[3], (await last.read(7 * BLOCK, 1))[0]], [1, 6])
  await last.close()
  assert.deepEqual((await seen('a third start')).bytes, [9, 7, 0, 1])
})

test('what lay unflushed below a layer that a cut seal made is durable once the disk is open again', async (t) => {
  const { folder } = await place(t)
  const id = randomUUID()
  const first = await made(await ScratchDisks.at(folder, 'one start'), id)
  await first.write(BLOCK, new Uint8Array(BLOCK).fill(7))
  await createLayer(join(folder, id), 1, 10 * BLOCK) // and the service is killed
  await (await ScratchDisks.at(folder, 'one start')).open(id, base())
  const after = await (await ScratchDisks.at(folder, 'another start')).open(id, base())
  assert.equal((await after.read(BLOCK, 1))[0], 7)
  await after.close()
})

test('a disk is open once: who comes while it is being closed waits, and sees all of it', async (t) => {
  const { disks } = await place(t)
  const id = randomUUID()
  const disk = await made(disks, id)
  await disk.write(5, Uint8Array.of(9))
  const waiting = [disks.open(id, base()), disks.open(id, base())]
  let opened = 0
  for (const one of waiting)
    void one.then(async (it) => {
      opened += 1
      assert.equal((await it.read(5, 1))[0], 9)
      if (opened === 1) await it.close()
    })
  await disk.close()
  await Promise.all(waiting)
  await (await waiting[1]!).close()
})

test('a removal while it is open takes place when it is closed; a sweep leaves what is wanted', async (t) => {
  const { folder, disks } = await place(t)
  const [open, wanted, left] = [randomUUID(), randomUUID(), randomUUID()]
  for (const id of [wanted, left]) await (await made(disks, id)).close()
  const disk = await made(disks, open)
  assert.equal(await disks.sweep(async (id) => id === wanted), 2)
  assert.deepEqual(readdirSync(folder).sort(), [open, wanted].sort())
  await disk.write(0, Uint8Array.of(5))
  assert.equal((await disk.read(0, 1))[0], 5, 'it can be used until then')
  await disk.close()
  assert.deepEqual(readdirSync(folder), [wanted])
  await disks.remove(left)
})

test('a disk that is being made is not swept; where its name fails it is gone', async (t) => {
  const { folder, disks } = await place(t)
  const [kept, failed] = [randomUUID(), randomUUID()]
  await disks.create(kept, BLOCK, async () => assert.equal(await disks.sweep(async () => false), 0))
  assert.deepEqual(readdirSync(folder), [kept])
  await assert.rejects(
    disks.create(failed, BLOCK, () => Promise.reject(new Error('no'))),
    /no/,
  )
  assert.deepEqual(readdirSync(folder), [kept])
  await assert.rejects(disks.create(kept, BLOCK, assert.fail), { code: 'EEXIST' })
  assert.deepEqual(readdirSync(folder), [kept], 'that of another is left alone')
})

test('only so many are open at once, and one that could not be opened holds no place', async (t) => {
  const { folder } = await place(t)
  const disks = await ScratchDisks.at(folder, 'one start', { disks: 3, lent: 2, ofProject: 1, mapBytes: 2 ** 30 })
  const open = await Promise.all(Array.from({ length: 3 }, () => made(disks, randomUUID())))
  let isClosed = false
  const refused = disks.open(randomUUID(), {
    ...base(),
    close: async () => {
      isClosed = true
    },
  })
  await assert.rejects(refused, { code: 'unavailable', message: /3 writable disks are open/ })
  assert.ok(isClosed)
  await open[0]!.close()
  await assert.rejects(disks.create(randomUUID(), 2 ** 40 + 1, assert.fail), { code: 'too-large' })
  for (const one of [await made(disks, randomUUID()), ...open.slice(1)]) await one.close()
})

test('of one project fewer are open, and of all projects not those that are for machines', async (t) => {
  const { folder } = await place(t)
  const disks = await ScratchDisks.at(folder, 'one start', { disks: 5, lent: 3, ofProject: 2, mapBytes: 2 ** 30 })
  const lend = async (project: string) => {
    const id = randomUUID()
    await disks.create(id, base().size, async () => undefined)
    return disks.open(id, base(), project)
  }
  const [first] = [await lend('a'), await lend('a')]
  await assert.rejects(lend('a'), { code: 'unavailable', message: /your project has 2 writable exports open/ })
  await lend('b')
  await assert.rejects(lend('c'), { code: 'unavailable', message: /3 writable exports are open on this host/ })
  await made(disks, randomUUID())
  await first.close()
  await lend('c')
  await made(disks, randomUUID())
  await assert.rejects(made(disks, randomUUID()), { code: 'unavailable' })
})

test('the maps of those that are open have their bound, and a host with few files has few disks open', async (t) => {
  const { folder } = await place(t)
  const disks = await ScratchDisks.at(folder, 'one start', { ...limitsFor(), mapBytes: 5 * 2 ** 20 })
  const large = await made(disks, randomUUID(), memorySource(2 ** 40, [])) // 4 MiB of map
  await assert.rejects(made(disks, randomUUID(), memorySource(2 ** 40, [])), { code: 'unavailable', message: /as large as/ })
  await large.close()
  await made(disks, randomUUID(), memorySource(2 ** 40, []))
  assert.deepEqual(limitsFor(1024), { disks: 64, lent: 32, ofProject: 8, mapBytes: 256 * 2 ** 20 })
  assert.equal(limitsFor(Number.POSITIVE_INFINITY).disks, 1024)
})

test('a map that is damaged, cut short, gone, or of another disk is refused', async (t) => {
  const { folder, disks } = await place(t)
  const id = randomUUID()
  const map = join(folder, id, 'map')
  const disk = await made(disks, id)
  await disk.write(0, Uint8Array.of(7))
  await disk.close()
  const whole = readFileSync(map)
  assert.equal(whole.length, 2 * 4096)
  assert.equal(whole.subarray(0, 8).toString(), 'IMPSCRTC')
  const reads = async () => {
    const open = await disks.open(id, base())
    const [first] = await open.read(0, 1)
    await open.close()
    return first
  }
  assert.equal(await reads(), 7)
  const damaged: readonly [string, (bytes: Buffer) => void][] = [
    ['magic', (bytes) => bytes.write('x', 0)],
    ['version', (bytes) => bytes.writeUInt32BE(2, 8)],
    ['block size', (bytes) => bytes.writeUInt32BE(4096, 12)],
    ['disk size', (bytes) => bytes.writeBigUInt64BE(1n, 16)],
    ['a state that there is not', (bytes) => bytes.writeUInt8(0b11, 4096)],
  ]
  for (const [what, damage] of damaged) {
    const bytes = Buffer.from(whole)
    damage(bytes)
    writeFileSync(map, bytes)
    await assert.rejects(disks.open(id, base()), { code: 'corrupt' }, what)
  }
  for (const bytes of [Buffer.alloc(0), whole.subarray(0, 10), whole.subarray(0, 4095), Buffer.alloc(whole.length)]) {
    writeFileSync(map, bytes)
    await assert.rejects(disks.open(id, base()), { code: 'corrupt' }, `${bytes.length} bytes`)
  }
  rmSync(map)
  await assert.rejects(disks.open(id, base()), { code: 'corrupt', message: /gone/ })
  writeFileSync(map, whole)
  truncateSync(join(folder, id, 'disk'), 100)
  const short = await disks.open(id, base())
  await assert.rejects(short.read(0, BLOCK), { code: 'corrupt' })
  await short.close()
})

test('after a sync that failed nothing is called durable any more', async (t) => {
  const { folder } = await place(t)
  await createLayer(folder, 0, BLOCK)
  const file = await openLayer(folder, 0, BLOCK, 'a start')
  await file.write(0, [Uint8Array.of(1)])
  await file.close() // the descriptors are gone: the next sync fails
  await assert.rejects(file.sync(), { code: 'EBADF' })
  await assert.rejects(file.sync(), { code: 'unavailable' })
})
