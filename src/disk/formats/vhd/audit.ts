import type { BlockSource } from '../../block/block-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { placeOf, SLICE_BYTES, UNUSED } from './disk.ts'
import { FOOTER_BYTES, refuse, SECTOR_BYTES } from './footer.ts'
import { DYNAMIC_HEADER_BYTES, readVhd, type SparseVhd, type Vhd } from './header.ts'

/**
 * Walks the block allocation table. Holds 4 bytes for each of its blocks, 32 MiB at most.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function auditFile(file: BlockSource, given: OpenOptions = {}): Promise<readonly string[]> {
  const vhd = await readVhd(file, given)
  if (vhd.kind !== 'fixed') await auditBlocks(file, vhd)
  return warningsOf(vhd, file.size)
}

function warningsOf(vhd: Vhd, fileBytes: number): string[] {
  const { virtualBytes, currentBytes, geometryBytes, isSaved } = vhd.footer
  const warnings: string[] = []
  if (virtualBytes === geometryBytes && currentBytes !== geometryBytes) {
    warnings.push(
      `vhd: the disk has ${virtualBytes} bytes by its geometry, as its creator counts them; Hyper-V sees the ${currentBytes} of its Current Size`,
    )
  }
  if (isSaved) warnings.push('vhd: the machine of this disk was saved, not shut down; what it had in memory is not in the file')
  if (fileBytes - vhd.footerOffset !== FOOTER_BYTES) {
    warnings.push('vhd: the footer has 511 bytes, as before Virtual PC 2004; if the file is newer, it is cut off')
  }
  if (vhd.kind === 'fixed' && vhd.footerOffset > virtualBytes) {
    warnings.push(`vhd: ${vhd.footerOffset - virtualBytes} bytes between the end of the disk and the footer are not shown`)
  }
  return warnings
}

async function auditBlocks(file: BlockSource, vhd: SparseVhd): Promise<void> {
  const { blocks, blockBytes, bitmapBytes, tableOffset, headerOffset, tableEntries } = vhd
  const tables = [
    { what: 'the copy of the footer', offset: 0, end: FOOTER_BYTES },
    { what: 'the dynamic disk header', offset: headerOffset, end: headerOffset + DYNAMIC_HEADER_BYTES },
    { what: 'the block allocation table', offset: tableOffset, end: tableOffset + tableEntries * 4 },
  ]
  const overlapping = (offset: number, end: number) => tables.find((table) => table.offset < end && offset < table.end)
  const [, header, table] = tables
  if (header!.offset < table!.end && table!.offset < header!.end) {
    throw refuse('overlap', 'the block allocation table lies on the dynamic disk header', { tableOffset, headerOffset })
  }

  const strideSectors = (bitmapBytes + blockBytes) / SECTOR_BYTES
  const places = new Uint32Array(blocks)
  let used = 0
  for (let start = 0; start < blocks * 4; start += SLICE_BYTES) {
    const slice = await file.read(tableOffset + start, Math.min(SLICE_BYTES, blocks * 4 - start))
    const view = new DataView(slice.buffer, slice.byteOffset, slice.byteLength)
    for (let at = 0; at < slice.length; at += 4) {
      const entry = view.getUint32(at)
      if (entry === UNUSED) continue
      const diskOffset = ((start + at) / 4) * blockBytes
      const offset = placeOf(entry, vhd, diskOffset)
      const under = overlapping(offset, offset + bitmapBytes + blockBytes)
      if (under)
        throw refuse('overlap', `the block for byte ${diskOffset} of the disk lies on ${under.what}`, { diskOffset, offset })
      places[used] = entry
      used += 1
    }
  }
  const inOrder = places.subarray(0, used).sort()
  for (let index = 1; index < used; index += 1) {
    if (inOrder[index]! - inOrder[index - 1]! >= strideSectors) continue
    throw refuse('overlap', `two blocks of the disk use the same bytes of the file, at byte ${inOrder[index]! * SECTOR_BYTES}`, {
      offset: inOrder[index]! * SECTOR_BYTES,
    })
  }
}
