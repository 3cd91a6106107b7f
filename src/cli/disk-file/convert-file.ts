import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { checked } from '../../disk/block/checked.ts'
import type { TransferState } from '../progress.ts'
import type { Wanted } from './format-words.ts'
import { streamOf, writeStdout } from './stdout-target.ts'
import { TargetFile } from './target-file.ts'
import { withoutZeros } from './without-zeros.ts'
import { type Written, writeRanges, writeStream } from './write-target.ts'

export interface ConvertWish {
  /** It stays open. */
  readonly disk: BlockSource
  readonly wanted: Wanted
  /** Null: standard output. */
  readonly path: string | null
  readonly force: boolean
  /** Whether data are searched for zeros first. */
  readonly isSearched: boolean
  /** Whether the file is on the disk when this is done. */
  readonly isSynced: boolean
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * Writes a disk as a file of some format, which is there when it is whole, and else not at all.
 * @throws ServiceError of the disk and the writer; `conflict` where the file exists; `cancelled`
 */
export async function convertDisk(wish: ConvertWish): Promise<Written> {
  const { path, force, signal, onProgress } = wish
  await using opened = new AsyncDisposableStack()
  const target =
    path === null
      ? undefined
      : opened.adopt(await TargetFile.create(path, { force, isSynced: wish.isSynced }), (it) => it.close())
  const disk = wish.isSearched ? await searched(wish) : wish.disk
  const { writer } = wish.wanted
  const options = { signal, onProgress }
  if ('wrap' in writer) {
    const file = checked(await writer.wrap(kept(disk)), `${wish.wanted.format} file`)
    if (!target) return writeStdout(streamOf(file, signal), () => undefined, options)
    const written = await writeRanges(file, target, options)
    signal.throwIfAborted()
    await target.finish()
    return written
  }
  let doneBytes = 0
  const watched: BlockSource = {
    ...kept(disk),
    async read(offset, length, into) {
      const bytes = await disk.read(offset, length, into)
      doneBytes = Math.max(doneBytes, offset + length)
      return bytes
    },
  }
  const read = () => ({ doneBytes, totalBytes: disk.size })
  const rewrite = target && ((offset: number, bytes: Uint8Array) => target.write(bytes, offset))
  const stream = writer.pack(watched, { signal, rewrite })
  if (!target) return writeStdout(stream, read, options)
  const written = await writeStream(stream, target, {
    signal,
    onProgress: (bytes) => onProgress({ phase: 'Converting', ...read(), movedBytes: bytes, counts: { written: bytes } }),
  })
  signal.throwIfAborted()
  await target.finish()
  return written
}

const searched = ({ disk, signal, onProgress }: ConvertWish): Promise<BlockSource> =>
  withoutZeros(disk, {
    signal,
    onProgress: (doneBytes) =>
      onProgress({ phase: 'Looking for zeros', doneBytes, totalBytes: disk.size, movedBytes: doneBytes, counts: {} }),
  })

/** It is closed by whoever opened it, not with a file that is made of it. */
const kept = (disk: BlockSource): BlockSource => ({ ...checked(disk, 'disk'), close: async () => {} })

/** The word for a failure: what was interrupted fails in many ways. */
export function endedBy(signal: AbortSignal, error: unknown): unknown {
  if (signal.aborted) return signal.reason instanceof ServiceError ? signal.reason : new ServiceError('cancelled', 'interrupted')
  if ((error as NodeJS.ErrnoException | undefined)?.code !== 'ENOSPC') return error
  return new ServiceError('no-space', 'the disk is full; nothing was kept of what was written', {}, { cause: error })
}
