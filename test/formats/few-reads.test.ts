import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { checked } from '../../src/disk/block/checked.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { formatNamed } from '../../src/disk/formats/index.ts'
import { seeded } from '../fixtures/disk/disks.ts'
import { smallVdi } from '../fixtures/disk/vdi.ts'
import { smallVhd } from '../fixtures/disk/vhd.ts'

const BLOCKS = 120
const inOrder = Array.from({ length: BLOCKS }, (_, index) => index)
const shuffled = inOrder.map((index) => (index * 77 + 13) % BLOCKS)
const every = (bits: number) => Array.from({ length: BLOCKS }, () => bits)

/** Disks in blocks of 4 KiB: one by one they would be 120 reads, and as many of bitmaps. */
const small: readonly (readonly [name: string, format: string, file: Uint8Array])[] = [
  ['a VDI in order', 'vdi', smallVdi(inOrder, BLOCKS)],
  ['a VDI in any order', 'vdi', smallVdi(shuffled, BLOCKS)],
  ['a VHD, where a bitmap is before each block', 'vhd', smallVhd({ places: inOrder, bitmaps: every(0xff) })],
  ['a VHD in any order', 'vhd', smallVhd({ places: shuffled, bitmaps: every(0xff) })],
  ['a VHD of every other sector', 'vhd', smallVhd({ places: shuffled, bitmaps: every(0x55) })],
]
for (const [name, format, bytes] of small) {
  test(`a range in small blocks is read with few reads of the file: ${name}`, async () => {
    const file = bytesSource(bytes)
    let reads = 0
    let readBytes = 0
    const counted: BlockSource = {
      ...file,
      read(offset, length) {
        reads += 1
        readBytes += length
        return file.read(offset, length)
      },
    }
    const driver = formatNamed(format)
    const disk = checked(await driver.open(checked(counted, 'file')), format)
    reads = 0
    readBytes = 0
    const whole = await disk.read(0, disk.size)
    assert.ok(reads <= 12, `${reads} reads`)
    assert.ok(readBytes <= 2.5 * bytes.length, `${readBytes} bytes read of a file of ${bytes.length}`)

    /** Every sector alone is what it is among the others. */
    const random = seeded(3)
    for (let count = 0; count < 200; count += 1) {
      const at = Math.floor(random() * (disk.size / 512)) * 512
      assert.deepEqual(await disk.read(at, 512), whole.subarray(at, at + 512))
    }
  })
}
