import { type BlockSource, stack } from '../disk/block/block-source.ts'
import { readAhead } from '../disk/filters/read-ahead.ts'
import { openImage } from '../disk/formats/index.ts'
import type { OriginFile } from './origin.ts'
import { RemoteFile, type RemoteFileOptions } from './remote-file.ts'

export interface RemoteDisk {
  readonly disk: BlockSource
  /** Of the file that it is in. */
  readonly facts: OriginFile
}

/** The disk in a file that rests in a store elsewhere. Our own engine opens the file, here. */
export async function openRemoteDisk(options: RemoteFileOptions): Promise<RemoteDisk> {
  const file = await RemoteFile.open(options)
  try {
    const { chunkBytes, diskFormat } = file.facts
    const ahead = readAhead({ prefetch: (offset, length) => file.prefetch(offset, length), unitBytes: chunkBytes })
    return { disk: await openImage(diskFormat, stack(file, [ahead])), facts: file.facts }
  } catch (error) {
    await file.close()
    throw error
  }
}
