import type { BlockSource } from '../../disk/block/block-source.ts'
import { openFileSource } from '../../disk/block/file-source.ts'
import { formats, openImage } from '../../disk/formats/index.ts'
import { recogniseFile } from '../disk-file/open-disk.ts'

/** A file here, as what will be sent of it. */
export interface LocalImage {
  /** The disk in the file, which is kept as raw, where images share their chunks; or the file. Closing it closes the file. */
  readonly source: BlockSource
  /** Format of the file that `source` is. */
  readonly diskFormat: string
  /** Format of the file here. */
  readonly sourceFormat: string
  readonly fileBytes: number
}

/**
 * @param asFile keeps the bytes of the file, whatever its format
 * @throws ServiceError `invalid-image` for a file that refers to others, or is damaged; `not-found`
 */
export async function openLocalImage(path: string, asFile: boolean): Promise<LocalImage> {
  const file = await openFileSource(path)
  try {
    const { format: sourceFormat } = await recogniseFile(file, undefined)
    const opens = formats.some(({ name }) => name === sourceFormat) && sourceFormat !== 'raw' && !asFile
    const source = opens ? await openImage(sourceFormat, file) : file
    return { source, diskFormat: opens ? 'raw' : sourceFormat, sourceFormat, fileBytes: file.size }
  } catch (error) {
    await file.close()
    throw error
  }
}
