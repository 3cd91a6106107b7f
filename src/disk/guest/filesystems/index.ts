import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { paged } from '../../filters/paged.ts'
import { btrfs } from './btrfs/btrfs.ts'
import { exfat } from './exfat/exfat.ts'
import { ext4 } from './ext4/ext4.ts'
import { fat } from './fat/fat.ts'
import type { FileSystem, FileSystemDriver } from './file-system.ts'
import { iso9660 } from './iso9660/iso9660.ts'
import { ntfs } from './ntfs/ntfs.ts'
import { squashfs } from './squashfs/squashfs.ts'
import { xfs } from './xfs/xfs.ts'

/** Every kind that can be read, in the order in which they are looked for. */
export const fileSystems: readonly FileSystemDriver[] = [ext4, btrfs, exfat, fat, iso9660, ntfs, squashfs, xfs]

/** A store's chunk; what is kept of each volume. */
const PAGES = { pageBytes: 64 * KiB, maxBytes: 8 * MiB }

/**
 * The file system on a volume; undefined where there is none that is known. Closing the volume ends it.
 * @throws ServiceError `invalid-image` | `unsupported` where there is one that cannot be read
 */
export async function openFileSystem(volume: BlockSource): Promise<FileSystem | undefined> {
  const pages = paged(PAGES)(volume)
  for (const driver of fileSystems) {
    const found = await driver.open(pages)
    if (found) return found
  }
  return undefined
}
