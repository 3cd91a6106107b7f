import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { MiB } from '../../../base/units.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { readPartitions } from './list.ts'
import { readMbr } from './mbr.ts'

const SECTOR = 512

/** A boot record with entries at `lba`. */
function record(
  disk: Uint8Array,
  lba: number,
  ...entries: readonly (readonly [type: number, first: number, sectors: number])[]
): void {
  const view = new DataView(disk.buffer, lba * SECTOR, SECTOR)
  view.setUint16(510, 0x55aa)
  for (const [index, [type, first, sectors]] of entries.entries()) {
    view.setUint8(446 + index * 16 + 4, type)
    view.setUint32(446 + index * 16 + 8, first, true)
    view.setUint32(446 + index * 16 + 12, sectors, true)
  }
}

test('a chain of logical partitions that leads back, or into nothing, or on for ever, ends', async () => {
  const circle = new Uint8Array(MiB)
  record(circle, 0, [0x05, 100, 1000])
  record(circle, 100, [0x83, 1, 10], [0x05, 50, 100])
  record(circle, 150, [0x83, 1, 10], [0x05, 50, 100])
  const back = await readMbr(bytesSource(circle))
  assert.deepEqual([back?.partitions.length, back?.notes], [3, ['the chain of logical partitions leads back']])
  const cut = new Uint8Array(MiB)
  record(cut, 0, [0x0f, 100, 1000])
  record(cut, 100, [0x83, 1, 10], [0x05, 0xffffff00, 100])
  assert.match((await readMbr(bytesSource(cut)))!.notes[0]!, /where no record is/)
  const long = new Uint8Array(MiB)
  record(long, 0, [0x05, 1, 1000])
  for (let lba = 1; lba < 1000; lba += 1) record(long, lba, [0x83, 1, 1], [0x05, lba, 1])
  const many = await readMbr(bytesSource(long))
  assert.deepEqual([many?.partitions.length, many?.notes], [256, ['there are more than 255 logical partitions']])
})

test('partitions that overlap or end beyond the disk are told of; a boot sector that is no table is none', async () => {
  const disk = new Uint8Array(MiB)
  record(disk, 0, [0x83, 8, 100], [0x82, 50, 100], [0x83, 2000, 1000])
  const table = await readPartitions(bytesSource(disk))
  assert.deepEqual(table?.notes, ['partitions 1 and 2 overlap', 'partition 3 ends beyond the disk'])
  disk[446] = 0x7f
  assert.equal(await readPartitions(bytesSource(disk)), undefined)
  assert.equal(await readPartitions(bytesSource(new Uint8Array(0))), undefined)
})

test('any bytes are a table or none, and never an error', async () => {
  const sectors = fc.array(fc.uint8Array({ minLength: 64, maxLength: 64 }), { minLength: 1, maxLength: 8 })
  const property = fc.asyncProperty(sectors, fc.constantFrom(0, 0x80), async (tails, flag) => {
    const disk = new Uint8Array(8 * SECTOR)
    for (const [lba, tail] of tails.entries()) {
      disk.set(tail, lba * SECTOR + 446)
      disk.set([0x55, 0xaa], lba * SECTOR + 510)
      for (let entry = 0; entry < 4; entry += 1) disk[lba * SECTOR + 446 + entry * 16] = flag
    }
    await readPartitions(bytesSource(disk))
  })
  await fc.assert(property, { numRuns: Number(process.env.FUZZ_RUNS ?? 300) })
})
