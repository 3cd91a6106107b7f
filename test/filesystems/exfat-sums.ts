import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'

/** What exFAT sums, made right again after a change, so that what is changed is looked at. Sectors of 512 bytes. */
const SECTOR = 512
const ENTRY = 32
const FILE = 0x85
const MAX_SECONDARY = 18

export function sumBootRegions(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (const start of [0, 12 * SECTOR]) {
    if (start + 12 * SECTOR > bytes.length) return // a mutant may be cut off
    let sum = 0
    for (let at = 0; at < 11 * SECTOR; at += 1) {
      if (at === 106 || at === 107 || at === 112) continue
      sum = (((sum << 31) | (sum >>> 1)) + bytes[start + at]!) >>> 0
    }
    for (let at = 0; at < SECTOR; at += 4) view.setUint32(start + 11 * SECTOR + at, sum, true)
  }
}

/** Of the set that begins at a place, as if it went on without a break. */
export function sumSet(bytes: Uint8Array, start: number): void {
  const end = Math.min(bytes.length, start + (1 + bytes[start + 1]!) * ENTRY)
  let sum = 0
  for (let at = start; at < end; at += 1)
    if (at !== start + 2 && at !== start + 3) sum = (((sum << 15) | (sum >>> 1)) + bytes[at]!) & 0xffff
  bytes[start + 2] = sum & 0xff
  bytes[start + 3] = sum >>> 8
}

/** Of all that looks like one, from a byte on. */
function sumSets(bytes: Uint8Array, from: number): void {
  for (let at = from; at < bytes.length; at += ENTRY)
    if (bytes[at] === FILE && (bytes[at + 1] ?? 255) <= MAX_SECONDARY) sumSet(bytes, at)
}

export async function summed(volume: BlockSource): Promise<BlockSource> {
  const bytes = Uint8Array.from(await volume.read(0, volume.size))
  sumBootRegions(bytes)
  sumSets(bytes, 2 * 12 * SECTOR)
  return bytesSource(bytes)
}
