import { type BlockSource, stack } from '../disk/block/block-source.ts'
import { readAhead } from '../disk/filters/read-ahead.ts'
import { openImage } from '../disk/formats/index.ts'
import { RemoteFile, type RemoteFileOptions } from './remote-file.ts'

/** The disk in a file that rests in a store elsewhere. Our own engine opens the file, here. */
export async function openRemoteDisk(options: RemoteFileOptions): Promise<BlockSource> {
  const file = await RemoteFile.open(options)
  try {
    const { chunkBytes, diskFormat } = file.facts
    const ahead = readAhead({ prefetch: (offset, length) => file.prefetch(offset, length), unitBytes: chunkBytes })
    return await openImage(diskFormat, stack(file, [ahead]))
  } catch (error) {
    await file.close()
    throw error
  }
}
