import { isServiceError, ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import { type Inside, type Layer, lookInside } from '../../disk/containers/index.ts'
import { abortable } from '../../disk/filters/abortable.ts'
import { recognise } from '../../disk/formats/index.ts'
import type { TransferState } from '../progress.ts'
import { spooled } from './scratch-file.ts'

export interface LookOptions {
  /** What may be kept, as `--spool-bytes` has it. */
  readonly maxBytes: number
  readonly member?: string | undefined
  /** The option that says it, for messages. */
  readonly choosing: string
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * What lies inside a file, whatever is around it; a package of OVF is compared with its manifest. Unpacked bytes are in files without
 * names. What fails here closes the file.
 * @throws ServiceError as `lookInside`
 */
export async function lookInto(file: BlockSource, options: LookOptions): Promise<Inside> {
  const { maxBytes, member, choosing, signal, onProgress } = options
  let [readBytes, isVerifying] = [0, false]
  const watched: BlockSource = {
    size: file.size,
    async read(offset, length, into) {
      const bytes = await file.read(offset, length, into)
      if (isVerifying) {
        readBytes += length
        onProgress({ phase: 'Verifying', doneBytes: readBytes, totalBytes: file.size, movedBytes: readBytes, counts: {} })
      }
      return bytes
    },
    extents: (offset, length) => file.extents(offset, length),
    close: () => file.close(),
  }
  let close = () => file.close()
  try {
    const keep = (bytes: AsyncIterable<Uint8Array>, about: { readonly what: string; readonly totalBytes: number | null }) =>
      spooled(bytes, { ...about, maxBytes, signal, onProgress: (state) => onProgress({ ...state, phase: 'Unpacking' }) })
    const inside = await lookInside(watched, { recognise, keep, maxBytes, member, choosing, signal })
    close = () => inside.file.close()
    isVerifying = true
    await inside.appliance?.verify({ signal })
    isVerifying = false
    return { ...inside, file: inside.layers.length === 0 ? file : stack(inside.file, [abortable(signal)]) }
  } catch (error) {
    await close()
    if (!isServiceError(error, 'too-large') || error.details.maxBytes !== maxBytes) throw error
    const limit = `${formatBytes(maxBytes)} (${maxBytes} bytes)`
    const message = `more than ${limit} would have to be kept to read the file: say more with --spool-bytes`
    throw new ServiceError('too-large', message, error.details, { cause: error })
  }
}

/** `xz, then tar ("dir/disk.qcow2"), then qcow2`. */
export const layersText = (layers: readonly Layer[], format: string): string =>
  [...layers.map(({ kind, member }) => (member === undefined ? kind : `${kind} (${member})`)), format].join(', then ')
