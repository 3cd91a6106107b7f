import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { tableParts } from '../../block/data-in-file.ts'
import type { OpenOptions } from '../format-driver.ts'
import {
  bitmapEntryOf,
  blockOf,
  checkInFile,
  ENTRY_BYTES,
  FULLY_PRESENT,
  isBitmapEntry,
  PARTIALLY_PRESENT,
  parseEntry,
  SECTOR_BITMAP_BYTES,
  usedBytesOf,
} from './bat.ts'
import { openFile } from './disk.ts'
import { ALIGNMENT, HEADER_SECTION_BYTES, MAX_FILE_BYTES, refuse } from './header.ts'
import type { Layout } from './layout.ts'

/** Bytes of the table that are read at a time. */
const PART_BYTES = MiB

/** Walks the block allocation table. Holes of the file in it are skipped. @throws ServiceError `invalid-image` | `unsupported` */
export async function auditFile(file: BlockSource, given: OpenOptions = {}): Promise<readonly string[]> {
  const { whole, header, layout } = await openFile(file, given)
  const claims = new Claims(whole.size)
  claims.take(0, HEADER_SECTION_BYTES, 'the header section')
  for (const { offset, length } of layout.regions) claims.take(offset, length, `the region at byte ${offset}`)

  let cutOff = 0
  const partial = new PartialBlocks()
  const { offset, entries } = layout.bat
  const table = { offset, bytes: entries * ENTRY_BYTES, entryBytes: ENTRY_BYTES, partBytes: PART_BYTES }
  for await (const { bytes, first } of tableParts(whole, table)) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let at = 0; at < bytes.length; at += ENTRY_BYTES) {
      if (view.getUint32(at, true) === 0 && view.getUint32(at + 4, true) === 0) continue
      const entry = first + at / ENTRY_BYTES
      const { state, hostOffset } = parseEntry(view, at, entry, layout)
      if (state < FULLY_PRESENT) continue
      cutOff += claimBlock(entry, hostOffset, layout, whole.size, claims)
      if (isBitmapEntry(entry, layout)) partial.hasBitmap(entry)
      else if (state === PARTIALLY_PRESENT) partial.needsBitmap(blockOf(entry, layout), layout)
    }
  }
  partial.check()

  const warnings: string[] = []
  if (header.logGuid)
    warnings.push('vhdx: the file was not closed cleanly; its log is replayed in memory, and the file is kept as it is')
  if (cutOff > 0) warnings.push('vhdx: the file ends inside its last block, behind the end of the disk')
  return warnings
}

/** @returns 1 where the file ends inside the block, behind the end of the disk */
function claimBlock(entry: number, hostOffset: number, layout: Layout, fileBytes: number, claims: Claims): 0 | 1 {
  if (isBitmapEntry(entry, layout)) {
    checkInFile(hostOffset, SECTOR_BITMAP_BYTES, entry, fileBytes)
    claims.take(hostOffset, SECTOR_BITMAP_BYTES, `the sector bitmap block of BAT entry ${entry}`)
    return 0
  }
  checkInFile(hostOffset, usedBytesOf(blockOf(entry, layout), layout), entry, fileBytes)
  claims.take(hostOffset, layout.blockBytes, `the payload block of BAT entry ${entry}`)
  return hostOffset + layout.blockBytes > fileBytes ? 1 : 0
}

/** Which MiB of the file are in use: a bit each, 16 MiB of memory for the largest file. */
class Claims {
  readonly #bits: Uint8Array

  constructor(fileBytes: number) {
    this.#bits = new Uint8Array(Math.ceil(Math.min(fileBytes, MAX_FILE_BYTES) / ALIGNMENT / 8))
  }

  /** What lies beyond the end of the file is not claimed. @param offset,length multiples of 1 MiB */
  take(offset: number, length: number, what: string): void {
    const last = Math.min((offset + length) / ALIGNMENT, this.#bits.length * 8)
    for (let unit = offset / ALIGNMENT; unit < last; unit += 1) {
      const at = unit >>> 3
      const bit = 1 << (unit & 7)
      if (this.#bits[at]! & bit) {
        throw refuse('overlap', `${what} lies over what is in use already, at byte ${unit * ALIGNMENT} of the file`, {
          hostOffset: unit * ALIGNMENT,
        })
      }
      this.#bits[at]! |= bit
    }
  }
}

/** Section 2.5.1.1: a block that is partially present has a sector bitmap. Its entry follows those of its chunk. */
class PartialBlocks {
  /** The entry that the last partial block needs, until it comes; 0, which is of a payload block: none. */
  #needed = 0

  needsBitmap(block: number, layout: Layout): void {
    const entry = bitmapEntryOf(block, layout)
    if (entry !== this.#needed) this.check()
    this.#needed = entry
  }
  hasBitmap(entry: number): void {
    if (entry === this.#needed) this.#needed = 0
  }
  check(): void {
    if (this.#needed === 0) return
    throw refuse(
      'malformed',
      `blocks are partially present, and the sector bitmap block of BAT entry ${this.#needed} is not present`,
      {
        entry: this.#needed,
      },
    )
  }
}
