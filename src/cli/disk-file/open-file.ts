import { fstatSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { GiB } from '../../base/units.ts'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import { openFileSource } from '../../disk/block/file-source.ts'
import type { Inside } from '../../disk/containers/index.ts'
import { abortable } from '../../disk/filters/abortable.ts'
import { bytesOf } from '../byte-count.ts'
import type { OptionSpec } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import type { TransferState } from '../progress.ts'
import { openUrl } from './http-source.ts'
import { lookInto } from './look-into.ts'
import { spooled } from './scratch-file.ts'

export interface OpenedFile {
  /** The file as it is. */
  readonly source: BlockSource
  /** Bytes that it takes here; null where it is not here. */
  readonly allocatedBytes: number | null
  /** What lies in it once compression and archives are taken off. Closing that closes the file, and so does a failure. */
  inside(member?: MemberWish): Promise<Inside>
}
/** Which member of an archive, and the option that said it. */
export interface MemberWish {
  readonly name: string | undefined
  readonly option: string
}
export type OpenFile = (place: string) => Promise<OpenedFile>

export interface OpenPlaces {
  /** As `--spool-bytes` has it. */
  readonly spoolBytes: string | undefined
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

export const memberOption = {
  member: { type: 'text', value: 'NAME', help: 'of an archive with several disks, or an OVA: the one that is meant' },
} as const satisfies Record<string, OptionSpec>
/** Of the commands that open files. */
export const spoolOption = {
  spoolBytes: {
    type: 'text',
    value: 'BYTES',
    help: 'what may be kept in TMPDIR of what is unpacked, of standard input, or of an address without ranges, as 20G (default: 64G)',
  },
} as const satisfies Record<string, OptionSpec>
export const spoolLimit = (spoolBytes: string | undefined): number =>
  spoolBytes === undefined ? 64 * GiB : bytesOf('--spool-bytes', spoolBytes)
/** Of those that open the disk in one of them: what else belongs to it. */
export const diskOptions = {
  from: { type: 'text', value: 'FORMAT', help: 'what the file must be; one that holds something else is refused' },
  snapshot: { type: 'text', value: 'ID|NAME', help: 'the disk as it was when this internal snapshot was made' },
  parent: { type: 'list', value: 'FILE', help: 'what it is a difference to; given again, what that one is a difference to' },
  part: { type: 'list', value: 'FILE', help: 'another file of a disk that is in several' },
  ...memberOption,
} as const satisfies Record<string, OptionSpec>
export const PLACE = 'a file, a block device, an http:// or https:// address, or - for standard input'

/** Opens files by their paths, by addresses, and `-`, which is standard input and can be had once. Once `signal` is aborted nothing of them is read. */
export function placesOf({ spoolBytes, signal, onProgress }: OpenPlaces): OpenFile {
  const maxBytes = spoolLimit(spoolBytes)
  const options = { maxBytes, signal, onProgress }
  let isStdinTaken = false
  const open = async (place: string): Promise<Omit<OpenedFile, 'inside'>> => {
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
    const source = stack(opened.source, [abortable(signal)])
    return {
      ...opened,
      source,
      inside: (member = { name: undefined, option: '--member' }) =>
        lookInto(source, { ...options, member: member.name, choosing: `${member.option} NAME` }),
    }
  }
}

/**
 * A file of this machine, or a block device.
 * @throws ServiceError `not-found`, `invalid-request`
 */
async function openLocalFile(path: string): Promise<Omit<OpenedFile, 'inside'>> {
  const source = await openFileSource(path, { isDeviceWanted: true })
  const about = await stat(path)
  return { source, allocatedBytes: about.isBlockDevice() ? null : about.blocks * 512 }
}

/** Whether reading all of a place twice costs little. */
export const isNear = (place: string): boolean => !/^https?:\/\//i.test(place)
