import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { checked } from './checked.ts'
import { clustersWithData, type FilePlan, plannedFile } from './planned-file.ts'

const CLUSTER_BYTES = 4096
/** A table says at each byte which of its bytes it is. */
const fill = (name: number) => (part: Uint8Array, start: number) => {
  for (let at = 0; at < part.length; at += 1) part[at] = (name + start + at) % 251
}

/** A table, a gap, the clusters with or without something before each, a gap, a table; and the file as it must be, made in one go. */
async function planned(diskBytes: number, seed: number, headBytes: number) {
  const disk = checked(randomDisk(diskBytes, seed, 8), 'disk')
  const runs = await clustersWithData(disk, CLUSTER_BYTES)
  const head = { bytes: headBytes, fill: (part: Uint8Array, start: number, cluster: number) => fill(cluster)(part, start) }
  const stride = CLUSTER_BYTES + headBytes
  const end = 3000 + runs.clusters * stride
  const plan: FilePlan = {
    size: end + 1500,
    tables: [
      { offset: 100, bytes: 2000, fill: fill(7) },
      { offset: end + 500, bytes: 1000, fill: fill(11) },
    ],
    clusters: { runs, bytes: CLUSTER_BYTES, offset: 3000, ...(headBytes > 0 ? { head } : {}) },
  }
  const whole = new Uint8Array(plan.size)
  fill(7)(whole.subarray(100, 2100), 0)
  fill(11)(whole.subarray(end + 500), 0)
  for (let rank = 0; rank < runs.clusters; rank += 1) {
    const { cluster } = runs.clusterAt(rank)
    const at = 3000 + rank * stride
    if (headBytes > 0) fill(cluster)(whole.subarray(at, at + headBytes), 0)
    const from = cluster * CLUSTER_BYTES
    whole.set(await disk.read(from, Math.min(CLUSTER_BYTES, disk.size - from)), at + headBytes)
  }
  return { file: checked(plannedFile(disk, plan), 'file'), whole }
}

test('any range of it is what the whole has there', async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 300_000 }),
    fc.nat(1000),
    fc.constantFrom(0, 512),
    fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })), { maxLength: 6 }),
    async (diskBytes, seed, headBytes, ranges) => {
      const { file, whole } = await planned(diskBytes, seed, headBytes)
      assert.deepEqual(await file.read(0, file.size), whole)
      for (const [from, share] of ranges) {
        const offset = Math.floor(from * file.size)
        const length = Math.floor(share * (file.size - offset))
        assert.deepEqual(await file.read(offset, length), whole.subarray(offset, offset + length))
        for await (const extent of file.extents(offset, length)) {
          const { kind, offset: at, length: bytes } = extent
          if (kind !== 'data') assert.ok(whole.subarray(at, at + bytes).every((byte) => byte === 0))
        }
      }
    },
  )
  await fc.assert(property, { numRuns: 100 })
})

test('parts of a table that are not in use are zeros, and said to be', async () => {
  const disk = checked(randomDisk(10_000, 3, 8), 'disk')
  const runs = await clustersWithData(disk, CLUSTER_BYTES)
  /** Every second run of 100 bytes is in use. */
  function* used(from: number, to: number): Generator<readonly [number, number]> {
    for (let at = from - (from % 200); at < to; at += 200) {
      const [start, stop] = [Math.max(from, at), Math.min(to, at + 100)]
      if (start < stop) yield [start, stop]
    }
  }
  const tables = [{ offset: 50, bytes: 1950, fill: fill(7), used }]
  const size = 2000 + runs.clusters * CLUSTER_BYTES
  const file = checked(plannedFile(disk, { size, tables, clusters: { runs, bytes: CLUSTER_BYTES, offset: 2000 } }), 'file')
  const whole = new Uint8Array(2000)
  for (const [start, stop] of used(0, 1950)) fill(7)(whole.subarray(50 + start, 50 + stop), start)
  const property = fc.asyncProperty(fc.nat(2000), fc.nat(2000), async (from, count) => {
    const length = Math.min(count, 2000 - from)
    assert.deepEqual(await file.read(from, length), whole.subarray(from, from + length))
    for await (const { kind, offset, length: bytes } of file.extents(from, length)) {
      const isUsed = offset >= 50 && (offset - 50) % 200 < 100
      assert.equal(kind, isUsed ? 'data' : 'zero', `${bytes} bytes at ${offset}`)
    }
  })
  await fc.assert(property, { numRuns: 100 })
})
