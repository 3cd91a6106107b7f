import { nameOfBytes } from '../file-name.ts'
import type { DirectoryEntry } from '../file-system.ts'
import { entryKinds, type Inode } from './inode.ts'
import { has, INCOMPATIBLE, refuse, type Superblock } from './superblock.ts'

/** Source: Linux Documentation/filesystems/ext4, "Linear (Classic) Directories". The blocks of a hash tree look like empty ones to whoever reads all. */
const HEADER_BYTES = 8
const SLASH = 0x2f
/** Where a record ends at the end of a block of 64 KiB. */
const MAX_RECORD = 0xffff

/** The entries in one block, or in what is in the place of one. @throws ServiceError `invalid-image` at the first record that breaks the format */
export function* entriesIn(block: Uint8Array, directory: Inode, superblock: Superblock): Generator<DirectoryEntry> {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength)
  const hasKinds = has(superblock, INCOMPATIBLE.fileType)
  for (let at = 0; at + HEADER_BYTES <= block.length; ) {
    const inode = view.getUint32(at, true)
    const recordBytes = bytesOf(view.getUint16(at + 4, true), block.length)
    const nameBytes = hasKinds ? view.getUint8(at + 6) : view.getUint16(at + 6, true)
    const bad = (problem: string) =>
      refuse('malformed', `directory ${directory.id}, byte ${at} of a block: ${problem}`, { inode: directory.id })
    if (recordBytes < HEADER_BYTES || recordBytes % 4 !== 0 || at + recordBytes > block.length)
      throw bad(`rec_len is ${recordBytes}`)
    if (HEADER_BYTES + nameBytes > recordBytes) throw bad(`name_len is ${nameBytes}, and rec_len ${recordBytes}`)
    if (inode !== 0) {
      if (inode > superblock.raw.inodes) throw bad(`inode ${inode}, of ${superblock.raw.inodes}`)
      const name = block.subarray(at + HEADER_BYTES, at + HEADER_BYTES + nameBytes)
      if (nameBytes === 0 || name.includes(0) || name.includes(SLASH))
        throw bad('a name that is empty, or has a slash or a NUL in it')
      if (!isDots(name))
        yield { name: nameOfBytes(name), id: inode, kind: hasKinds ? (entryKinds[view.getUint8(at + 7)] ?? null) : null }
    }
    at += recordBytes
  }
}

/** Source: the kernel's ext4_rec_len_from_disk: with blocks of 64 KiB two bits of the length are its low ones. */
function bytesOf(field: number, blockBytes: number): number {
  if (blockBytes < MAX_RECORD) return field
  return field === MAX_RECORD || field === 0 ? blockBytes : (field & 0xfffc) | ((field & 3) << 16)
}

const DOT = 0x2e
const isDots = (name: Uint8Array): boolean => name.length <= 2 && name.every((byte) => byte === DOT)
