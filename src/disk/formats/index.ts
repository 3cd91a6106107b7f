import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../block/block-source.ts'
import { checked } from '../block/checked.ts'
import type { FormatDriver, FormatWriter, OpenOptions } from './format-driver.ts'
import { parallels } from './parallels/parallels.ts'
import { qcow2 } from './qcow2/qcow2.ts'
import { qed } from './qed/qed.ts'
import { raw } from './raw/raw.ts'
import { vdi } from './vdi/vdi.ts'
import { vhd } from './vhd/vhd.ts'
import { vhdx } from './vhdx/vhdx.ts'
import { vmdk } from './vmdk/vmdk.ts'

export type {
  Fact,
  FormatDriver,
  FormatWriter,
  InternalSnapshot,
  OpenOptions,
  PackOptions,
  StreamWriter,
} from './format-driver.ts'
export { recognise } from './recognise/recognise.ts'
export type { Found, Recognition } from './recognise/recognition.ts'
export { diskFormats, suggestedFormat, verifyDeclared } from './recognise/verify.ts'

/** The formats that can be opened, and most of them written. Others are recognised only. */
export const formats: readonly FormatDriver[] = [qcow2, vdi, vhd, vhdx, vmdk, qed, parallels, raw]

/** @throws ServiceError `unsupported`, listing the names that are known */
export function formatNamed(name: string): FormatDriver {
  const driver = formats.find((candidate) => candidate.name === name)
  if (driver) return driver
  const names = formats.map((candidate) => candidate.name).join(', ')
  throw new ServiceError('unsupported', `the disk format "${name}" cannot be opened or written; ${names} can`, { format: name })
}

/** Formats of which a machine is given the file as it is: an optical disc, a kernel, a ramdisk, a root file system. */
export const plainFormats: readonly string[] = ['raw', 'iso', 'ami', 'ari', 'aki']

/** Those whose disk can be shown: what our engine opens, and optical discs, which are what they are. */
export const openableFormats: readonly string[] = [...formats.map(({ name }) => name), 'iso']

/** How a disk is written in a format. @param subformat absent: the usual way. @throws ServiceError `unsupported`, listing what is known */
export function writerOf(name: string, subformat?: string): FormatWriter {
  const { writers } = formatNamed(name)
  const writer = subformat === undefined ? writers[0] : writers.find((candidate) => candidate.subformat === subformat)
  if (writer) return writer
  const known = writers.map((candidate) => candidate.subformat)
  const possible = known.length > 0 ? `as ${known.join(', ')}` : 'not at all: it can only be read'
  throw new ServiceError('unsupported', `a disk can be written in the format "${name}" ${possible}`, { format: name })
}

/** Shows the disk in a file of the format that its owner declared. The bytes never choose the format. */
export async function openImage(name: string, file: BlockSource, given?: OpenOptions): Promise<BlockSource> {
  const driver = plainFormats.includes(name) ? raw : formatNamed(name)
  if (given) assertOfUse(driver, given)
  return checked(await driver.open(checked(file, 'file'), given), name)
}

/** What a format has no use for is refused, rather than left alone: whoever gave it would take the disk for another. */
function assertOfUse({ name, hasParts = false, snapshots }: FormatDriver, { parts, snapshot }: OpenOptions): void {
  const useless = parts && !hasParts ? 'other files are' : snapshot !== undefined && !snapshots ? 'a snapshot is' : undefined
  if (useless === undefined) return
  const problem = `${name}: ${useless} given, but such a file is the whole disk`
  throw new ServiceError('invalid-image', problem, { format: name, reason: 'malformed' })
}

/**
 * The file of format `name` that would hold `disk`, any range of it.
 * @throws ServiceError `unsupported` also where the subformat can only be had from its first byte to its last
 */
export async function wrapDisk(name: string, disk: BlockSource, subformat?: string): Promise<BlockSource> {
  const writer = writerOf(name, subformat)
  if ('wrap' in writer) return checked(await writer.wrap(checked(disk, 'disk')), `${name} file`)
  throw new ServiceError('unsupported', `a ${name} file in its form ${writer.subformat} can only be made from front to back`)
}
