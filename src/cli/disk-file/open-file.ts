import { fstatSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { GiB } from '../../base/units.ts'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import { openFileSource } from '../../disk/block/file-source.ts'
import { abortable } from '../../disk/filters/abortable.ts'
import { bytesOf } from '../byte-count.ts'
import type { OptionSpec } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import type { TransferState } from '../progress.ts'
import { openUrl } from './http-source.ts'
import type { OpenFile } from './open-disk.ts'
import { spooled } from './scratch-file.ts'

export interface OpenedFile {
  readonly source: BlockSource
  /** Bytes that it takes here; null where it is not here. */
  readonly allocatedBytes: number | null
}

export interface OpenPlaces {
  /** As `--spool-bytes` has it. */
  readonly spoolBytes: string | undefined
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

const DEFAULT_SPOOL_BYTES = 64 * GiB
/** Of the commands that open files. */
export const spoolOption = {
  spoolBytes: {
    type: 'text',
    value: 'BYTES',
    help: 'what may be kept in TMPDIR of standard input, or of an address without ranges, as 20G (default: 64G)',
  },
} as const satisfies Record<string, OptionSpec>
/** Of those that open the disk in one of them: what else belongs to it. */
export const diskOptions = {
  from: { type: 'text', value: 'FORMAT', help: 'what the file must be; one that holds something else is refused' },
  snapshot: { type: 'text', value: 'ID|NAME', help: 'the disk as it was when this internal snapshot was made' },
  parent: { type: 'list', value: 'FILE', help: 'what it is a difference to; given again, what that one is a difference to' },
  part: { type: 'list', value: 'FILE', help: 'another file of a disk that is in several' },
} as const satisfies Record<string, OptionSpec>
export const PLACE = 'a file, a block device, an http:// or https:// address, or - for standard input'

/** Opens files by their paths, by addresses, and `-`, which is standard input and can be had once. Once `signal` is aborted nothing of them is read. */
export function placesOf({ spoolBytes, signal, onProgress }: OpenPlaces): OpenFile {
  const maxBytes = spoolBytes === undefined ? DEFAULT_SPOOL_BYTES : bytesOf('--spool-bytes', spoolBytes)
  const options = { maxBytes, signal, onProgress }
  let isStdinTaken = false
  const open: OpenFile = async (place) => {
    if (/^https?:\/\//i.test(place)) return { source: await openUrl(place, options), allocatedBytes: null }
    if (place !== '-') return openLocalFile(place)
    if (isStdinTaken) throw new UsageError('standard input (-) can be read once only')
    isStdinTaken = true
    if (process.stdin.isTTY) throw new UsageError('standard input is a terminal: send it a file, or the output of a program')
    if (fstatSync(0).isFile()) return openLocalFile('/dev/stdin')
    const source = await spooled(process.stdin, { ...options, what: 'standard input', totalBytes: null })
    return { source, allocatedBytes: null }
  }
  return async (place) => {
    const opened = await open(place)
    return { ...opened, source: stack(opened.source, [abortable(signal)]) }
  }
}

/**
 * A file of this machine, or a block device. What lies around a disk (compression, archives) is to be taken off here: everything else of these commands
 * sees what comes back.
 * @throws ServiceError `not-found`, `invalid-request`
 */
async function openLocalFile(path: string): Promise<OpenedFile> {
  const source = await openFileSource(path, { isDeviceWanted: true })
  const about = await stat(path)
  return { source, allocatedBytes: about.isBlockDevice() ? null : about.blocks * 512 }
}

/** Whether reading all of a place twice costs little. */
export const isNear = (place: string): boolean => !/^https?:\/\//i.test(place)
