import { extname } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { type FormatWriter, formats, writerOf } from '../../disk/formats/index.ts'
import { UsageError } from '../exit-codes.ts'
import { safeText } from '../safe-text.ts'

/** What QEMU calls them. */
const otherNames: Readonly<Record<string, string>> = { vpc: 'vhd', img: 'raw' }
const byExtension: Readonly<Record<string, string>> = { img: 'raw', bin: 'raw', qcow: 'qcow2', vpc: 'vhd' }

/** All who read OVA read this. */
const OVA_DISK = ['vmdk', 'streamOptimized'] as const

export interface Wanted {
  /** Glance's word for a disk format, or `ova`. */
  readonly format: string
  /** Of an OVA, that of the disk in it. */
  readonly writer: FormatWriter
}

/**
 * How the target shall be written: as `--to` says, or the name of the file.
 * @throws UsageError where neither does; ServiceError `unsupported`, listing what is known
 */
export function wantedFormat(to: string | undefined, target: string): Wanted {
  const [name = '', subformat] = to === undefined ? [formatByName(target)] : splitOnce(to)
  const format = formatWord(name)
  if (format === 'ova') {
    if (subformat !== undefined && subformat !== OVA_DISK.join(':'))
      throw new ServiceError('unsupported', `an ova is written as ${OVA_DISK.join(':')}`, { format })
    return { format, writer: writerOf(...OVA_DISK) }
  }
  return { format, writer: writerOf(format, subformat) }
}

/** `vpc` → `vhd`. */
export const formatWord = (word: string): string => {
  const name = word.toLowerCase()
  return otherNames[name] ?? name
}

/** `vmdk:streamOptimized` → both words. */
const splitOnce = (text: string): [string, string?] => {
  const colon = text.indexOf(':')
  return colon < 0 ? [text] : [text.slice(0, colon), text.slice(colon + 1)]
}

function formatByName(target: string): string {
  const extension = extname(target).slice(1).toLowerCase()
  const name = byExtension[extension] ?? extension
  const known = [...formats.filter(({ writers }) => writers.length > 0).map((format) => format.name), 'ova']
  if (known.includes(name)) return name
  const why =
    target === '-' ? 'standard output has no name that tells the format' : `"${safeText(target)}" does not tell the format`
  throw new UsageError(`${why}: say --to with one of ${known.join(', ')}`)
}
