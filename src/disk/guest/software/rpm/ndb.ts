import { struct, u32le } from '../../../../base/struct.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { type ReadHeaders, refuse, unsupported } from './blob.ts'

/**
 * `Packages.db`: slots of 16 bytes at the front that say where each package is. Little-endian; blocks have 16 bytes. Source: rpm,
 * lib/backend/ndb/rpmpkg.c.
 */
const head = struct('header of Packages.db', { magic: u32le(0), version: u32le(4), slotPages: u32le(12) })
const slot = struct('slot of Packages.db', { magic: u32le(0), package: u32le(4), block: u32le(8), blocks: u32le(12) })
const front = struct('package of Packages.db', { magic: u32le(0), package: u32le(4), bytes: u32le(12) })
const word = (text: string): number => Buffer.from(text, 'latin1').readUInt32LE()
const magics = { file: word('RpmP'), slot: word('Slot'), start: word('BlbS'), end: word('BlbE') }
const HEAD_BYTES = 32
const PAGE_BYTES = 4096
const BLOCK_BYTES = 16
const TAIL_BYTES = 12 // Adler-32, length, magic
const MAX_SLOT_PAGES = 4096 // 2^20 packages

export function openNdb(file: BlockSource): ReadHeaders {
  return async function* (notes) {
    if (file.size < PAGE_BYTES) throw refuse(`has ${file.size} bytes and no page of slots`, 'truncated')
    const { magic, version, slotPages } = head.parse(await file.read(0, HEAD_BYTES))
    if (magic !== magics.file) throw refuse('has no "RpmP" at its start')
    if (version !== 0) throw unsupported(`is of version ${version}, and 0 is known`)
    if (slotPages === 0 || slotPages > MAX_SLOT_PAGES || slotPages * PAGE_BYTES > file.size)
      throw refuse(`says that it has ${slotPages} pages of slots, in ${file.size} bytes; at most ${MAX_SLOT_PAGES} are read`)
    const seen = new Set<number>()
    for (let page = 0; page < slotPages; page += 1) {
      const slots = await file.read(page * PAGE_BYTES, PAGE_BYTES)
      for (let at = page === 0 ? HEAD_BYTES : 0; at < PAGE_BYTES; at += BLOCK_BYTES) {
        const found = slot.parse(slots.subarray(at, at + BLOCK_BYTES))
        if (found.magic !== magics.slot) {
          notes.add(`the rpm database has no slot at byte ${page * PAGE_BYTES + at}`)
          continue
        }
        if (found.block === 0) continue
        const where = `package ${found.package}`
        const [start, bytes] = [found.block * BLOCK_BYTES, found.blocks * BLOCK_BYTES]
        if (found.block * BLOCK_BYTES < slotPages * PAGE_BYTES || bytes < front.bytes + TAIL_BYTES || start + bytes > file.size) {
          notes.add(`the rpm database has ${where} at byte ${start}, ${bytes} bytes long, which is not within it`)
          continue
        }
        if (seen.has(found.package)) {
          notes.add(`the rpm database has two slots of ${where}`)
          continue
        }
        seen.add(found.package)
        const stored = front.parse(await file.read(start, front.bytes))
        if (
          stored.magic !== magics.start ||
          stored.package !== found.package ||
          stored.bytes > bytes - front.bytes - TAIL_BYTES
        ) {
          notes.add(`the rpm database has no ${where} at byte ${start}, where its slot says`)
          continue
        }
        const from = start + front.bytes
        yield {
          what: where,
          blob: {
            bytes: stored.bytes,
            prefix(count) {
              if (count > stored.bytes)
                throw refuse(`has ${where} of ${stored.bytes} bytes where ${count} are wanted`, 'truncated')
              return file.read(from, count)
            },
          },
        }
      }
    }
  }
}
