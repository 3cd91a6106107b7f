import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import type { BlockSource } from './block-source.ts'
import { checked } from './checked.ts'
import { DataFinder, tableParts } from './data-in-file.ts'
import { memorySource } from './memory-source.ts'

const MiB = 2 ** 20
const SIZE = MiB

test('what the finder calls empty is zeros, and what it calls data touches data', async () => {
  const file = checked(randomDisk(SIZE, 12, 3), 'file')
  const finder = new DataFinder(file)
  await fc.assert(
    fc.asyncProperty(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 200_000 }), async (offset, wanted) => {
      const length = Math.min(wanted, SIZE - offset)
      const runs = await Array.fromAsync(file.extents(offset, length))
      assert.equal(
        await finder.hasData(offset, length),
        runs.some(({ kind }) => kind === 'data'),
      )
    }),
  )
})

test('the parts of a table are its entries but for zeros, each once and ascending', async () => {
  const file = checked(randomDisk(SIZE, 12, 4), 'file')
  await fc.assert(
    fc.asyncProperty(fc.nat(SIZE / 2), fc.nat(5000), fc.constantFrom(4, 8), async (offset, entries, entryBytes) => {
      const bytes = entries * entryBytes
      const table = await file.read(offset, bytes)
      const rebuilt = new Uint8Array(bytes)
      let next = 0
      for await (const part of tableParts(file, { offset, bytes, entryBytes, partBytes: 1024 })) {
        assert.ok(part.first >= next && part.bytes.length % entryBytes === 0 && part.bytes.length <= 1024)
        rebuilt.set(part.bytes, part.first * entryBytes)
        next = part.first + part.bytes.length / entryBytes
      }
      assert.deepEqual(rebuilt, table)
    }),
  )
})

test('a hole of 1 TiB is asked for in few steps, however many tables lie in it', async () => {
  const file = memorySource(2 ** 40, [{ offset: 2 ** 39, bytes: Uint8Array.of(1) }])
  let asked = 0
  const counted: BlockSource = {
    ...file,
    extents(offset, length) {
      asked += 1
      return file.extents(offset, length)
    },
  }
  const finder = new DataFinder(counted)
  let withData = 0
  for (let table = 0; table < 2 ** 14; table += 1)
    withData += (await finder.hasData(2 ** 39 - 64 * MiB + table * 8192, 8192)) ? 1 : 0
  assert.equal(withData, 1)
  assert.ok(asked < 20, `asked ${asked} times`)
})
