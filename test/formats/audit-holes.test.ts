import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { checked } from '../../src/disk/block/checked.ts'
import { memorySource } from '../../src/disk/block/memory-source.ts'
import { formatNamed, wrapDisk } from '../../src/disk/formats/index.ts'
import { smallQcow2 } from '../fixtures/disk/hostile.ts'
import { smallParallels } from '../fixtures/disk/parallels.ts'
import { poked } from '../fixtures/disk/poked.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30

/** A file that is all tables, and none of them is written: what costs its author a few MiB must not cost the auditor all of it. */
const holed: readonly (readonly [format: string, file: () => BlockSource | Promise<BlockSource>])[] = [
  ['qed', qedOfTables],
  ['qcow2', qcow2OfTables],
  [
    'ploop',
    () => {
      const head = smallParallels([32, 4, 2 ** 27], [36, 8, 2 ** 30], [48, 4, 0], [64, 4, 0], [72, 4, 0]).subarray(0, 512)
      return memorySource(GiB, [{ offset: 0, bytes: head }])
    },
  ],
  ['vmdk', () => wrapDisk('vmdk', memorySource(2 ** 40, [{ offset: 2 ** 39, bytes: new Uint8Array(512).fill(1) }]))],
]

/** 2^17 tables of 2 MiB, which are 256 GiB, and a map of them. */
function qedOfTables(): BlockSource {
  const [cluster, tables] = [128 * 1024, 2 ** 17]
  const l1 = new DataView(new ArrayBuffer(tables * 8))
  for (let index = 0; index < tables; index += 1) l1.setBigUint64(index * 8, BigInt(4 * MiB + index * 2 * MiB), true)
  const head = poked(
    new Uint8Array(512),
    true,
    [0, 'QED\0'],
    [4, 4, cluster],
    [8, 4, 16],
    [12, 4, 1],
    [40, 8, cluster],
    [48, 8, 2 ** 52],
  )
  const pieces = [
    { offset: 0, bytes: head },
    { offset: cluster, bytes: new Uint8Array(l1.buffer) },
  ]
  return memorySource(4 * MiB + tables * 2 * MiB, pieces)
}

/** 2^16 tables of 128 KiB, which are 8 GiB. */
function qcow2OfTables(): BlockSource {
  const [cluster, tables] = [128 * 1024, 2 ** 16]
  const l1 = new DataView(new ArrayBuffer(tables * 8))
  for (let index = 0; index < tables; index += 1) l1.setBigUint64(index * 8, BigInt(16 * MiB + index * cluster))
  const head = poked(
    smallQcow2().subarray(0, 512),
    false,
    [20, 4, 17],
    [24, 8, 2 ** 47],
    [36, 4, tables],
    [40, 8, 8 * MiB],
    [48, 8, MiB],
  )
  const pieces = [
    { offset: 0, bytes: head },
    { offset: 8 * MiB, bytes: new Uint8Array(l1.buffer) },
  ]
  return memorySource(16 * MiB + tables * cluster, pieces)
}

for (const [format, make] of holed) {
  test(`the audit of a ${format} file does not read tables that are holes of it`, async () => {
    const file = checked(await make(), 'file')
    let readBytes = 0
    const counted: BlockSource = {
      ...file,
      read(offset, length) {
        readBytes += length
        return file.read(offset, length)
      },
    }
    assert.deepEqual(await formatNamed(format).audit(counted), [])
    assert.ok(readBytes <= 4 * MiB, `read ${readBytes} of ${file.size} bytes`)
  })
}
