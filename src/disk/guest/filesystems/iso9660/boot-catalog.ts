import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { readDescriptors, refuse, SECTOR_BYTES } from './descriptors.ts'

/** What firmware starts from a disc. Source: "El Torito" Bootable CD-ROM Format Specification 1.0, section 2; UEFI, "ISO-9660 and El Torito". */
export interface BootImage {
  /** 0 x86 (BIOS), 1 PowerPC, 2 Mac, 0xef EFI; others as they are. */
  readonly platform: number
  readonly isBootable: boolean
  /** What the firmware pretends it is. */
  readonly emulation: 'none' | 'floppy' | 'hard-disk'
  /** Bytes from the start of the volume. */
  readonly offset: number
  /** As the catalogue says: what BIOS loads, of EFI the whole image where it is not 0 or 1 sector. */
  readonly bytes: number
}

const MAX_BYTES = 32 * KiB // of the catalogue: 1,024 entries
const ENTRY_BYTES = 32
const HEADER = { validation: 0x01, section: 0x90, lastSection: 0x91, extension: 0x44 } as const
const BOOTABLE = 0x88
const LOAD_BYTES = 512 // a "virtual sector"
const MEDIA = 0xf

/**
 * The boot images of a disc, in the order of its catalogue; none where it has no catalogue.
 * @throws ServiceError `invalid-image` for a catalogue that is damaged
 */
export async function bootImages(volume: BlockSource): Promise<readonly BootImage[]> {
  const catalog = (await readDescriptors(volume))?.bootCatalog
  if (catalog === undefined) return []
  const offset = catalog * SECTOR_BYTES
  if (offset + SECTOR_BYTES > volume.size)
    throw refuse('truncated', 'the boot catalogue lies beyond the end of the volume', { offset })
  const bytes = await volume.read(offset, Math.min(MAX_BYTES, volume.size - offset))
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let sum = 0
  for (let at = 0; at < ENTRY_BYTES; at += 2) sum = (sum + view.getUint16(at, true)) & 0xffff
  if (bytes[0] !== HEADER.validation || view.getUint16(30) !== 0x55aa || sum !== 0)
    throw refuse('malformed', 'the validation entry of the boot catalogue is none', { offset })
  const image = (at: number, platform: number): BootImage => {
    const media = bytes[at + 1]! & MEDIA
    return {
      platform,
      isBootable: bytes[at] === BOOTABLE,
      emulation: media === 0 ? 'none' : media < 4 ? 'floppy' : 'hard-disk',
      offset: view.getUint32(at + 8, true) * SECTOR_BYTES,
      bytes: view.getUint16(at + 6, true) * LOAD_BYTES,
    }
  }
  const found = [image(ENTRY_BYTES, bytes[1]!)]
  for (let at = 2 * ENTRY_BYTES; at + ENTRY_BYTES <= bytes.length; ) {
    const header = bytes[at]!
    if (header !== HEADER.section && header !== HEADER.lastSection) break
    const platform = bytes[at + 1]!
    let left = view.getUint16(at + 2, true)
    at += ENTRY_BYTES
    for (; left > 0 && at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
      if (bytes[at] === HEADER.extension) continue // of the entry before
      found.push(image(at, platform))
      left -= 1
    }
    if (header === HEADER.lastSection) break
  }
  return found
}
