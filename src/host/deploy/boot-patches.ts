import { isServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { Piece } from '../../disk/block/memory-source.ts'
import { gptForDisk, readGpt } from '../../disk/guest/partitions/gpt.ts'
import type { ImageDisk } from './image-disk.ts'

export interface BootPatches {
  readonly patches: readonly Piece[]
  /** What became of the partition table, or why nothing did; for people. */
  readonly note: string | null
}

const none: BootPatches = { patches: [], note: null }
const BACKUP_SIGNATURE = 'EFI PART'

/**
 * What a disk that is larger than the image needs so that its partition table is in order: a GPT has its second copy in the last
 * block. Where the image has no GPT, one that an earlier system left in the last block goes, since tools would believe it.
 */
export async function bootPatches(
  image: ImageDisk,
  target: Pick<BlockSource, 'size' | 'read'>,
  sectorBytes: number,
): Promise<BootPatches> {
  if (target.size === image.size) return none
  try {
    const gpt = await readGpt(image)
    if (!gpt) return { patches: await withoutStaleCopy(image, target, sectorBytes), note: null }
    const patches = gptForDisk(gpt, target.size)
    if (!patches)
      return { patches: [], note: 'a partition lies where the second copy of the partition table would go: it stays as it is' }
    return patches.length === 0
      ? none
      : { patches, note: 'the second copy of the partition table (GPT) lies at the end of the disk' }
  } catch (error) {
    if (isServiceError(error, 'invalid-image')) return { patches: [], note: `${error.message}; it was left as it is` }
    throw error
  }
}

async function withoutStaleCopy(
  { size }: ImageDisk,
  target: Pick<BlockSource, 'size' | 'read'>,
  sectorBytes: number,
): Promise<readonly Piece[]> {
  const offset = Math.floor(target.size / sectorBytes) * sectorBytes - sectorBytes
  if (offset < size) return []
  const last = await target.read(offset, sectorBytes)
  const isCopy = Buffer.from(last.subarray(0, BACKUP_SIGNATURE.length)).toString('latin1') === BACKUP_SIGNATURE
  return isCopy ? [{ offset, bytes: new Uint8Array(sectorBytes) }] : []
}
