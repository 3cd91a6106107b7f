import type { BlockSource } from '../../disk/block/block-source.ts'
import { openFileSource } from '../../disk/block/file-source.ts'
import type { ImageHints, Layer } from '../../disk/containers/index.ts'
import { formats, openImage } from '../../disk/formats/index.ts'
import { type LookOptions, lookInto } from '../disk-file/look-into.ts'
import { auditOf, recogniseFile } from '../disk-file/open-disk.ts'

/** A file here, as what will be sent of it. */
export interface LocalImage {
  /** The disk in the file, which is kept as raw, where images share their chunks; or the file. Closing it closes the file. */
  readonly source: BlockSource
  /** Format of the file that `source` is. */
  readonly diskFormat: string
  /** Format of the file here. */
  readonly sourceFormat: string
  readonly fileBytes: number
  /** What the file was in, from the outside in, where it is not kept as it is. */
  readonly layers: readonly Layer[]
  /** Of an OVA: what the image should say. */
  readonly hints: ImageHints | undefined
}
export interface LocalOptions extends Omit<LookOptions, 'choosing'> {
  /** Keeps the bytes of the file, whatever its format, and whatever it is in. */
  readonly asFile: boolean
}

/**
 * The disk in a file, whatever is around it, after everything in its tables was looked at, as the other commands do.
 * @throws ServiceError `invalid-image` for a file that refers to others, or is damaged; `not-found`
 */
export async function openLocalImage(path: string, { asFile, ...options }: LocalOptions): Promise<LocalImage> {
  const outer = await openFileSource(path)
  const about = { fileBytes: outer.size }
  if (asFile) {
    return closedOnFailure(outer, async () => {
      const { format } = await recogniseFile(outer, undefined)
      return { ...about, source: outer, diskFormat: format, sourceFormat: format, layers: [], hints: undefined }
    })
  }
  const { file, layers, parts, appliance, declaredFormat } = await lookInto(outer, { ...options, choosing: '--member NAME' })
  return closedOnFailure(file, async () => {
    const { format: sourceFormat } = await recogniseFile(file, declaredFormat ?? undefined, parts !== undefined)
    const opens = formats.some(({ name }) => name === sourceFormat) && sourceFormat !== 'raw'
    if (opens) await auditOf(file, sourceFormat, { parts }, options.onProgress)
    const source = opens ? await openImage(sourceFormat, file, { parts }) : file
    const hints = appliance?.hints
    return { ...about, source, diskFormat: opens ? 'raw' : sourceFormat, sourceFormat, layers, hints }
  })
}

async function closedOnFailure<Result>(file: BlockSource, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    await file.close()
    throw error
  }
}
