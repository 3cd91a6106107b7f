import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../block/block-source.ts'
import { checked } from '../block/checked.ts'
import type { FormatDriver } from './format-driver.ts'
import { qcow2 } from './qcow2/qcow2.ts'
import { raw } from './raw/raw.ts'

export type { FormatDriver } from './format-driver.ts'
export { recognise } from './recognise/recognise.ts'
export type { Found, Recognition } from './recognise/recognition.ts'
export { diskFormats, suggestedFormat, verifyDeclared } from './recognise/verify.ts'

/** The formats that can be opened and written. Others are recognised only. */
export const formats: readonly FormatDriver[] = [qcow2, raw]

/** @throws ServiceError `unsupported`, listing the names that are known */
export function formatNamed(name: string): FormatDriver {
  const driver = formats.find((candidate) => candidate.name === name)
  if (driver) return driver
  const names = formats.map((candidate) => candidate.name).join(', ')
  throw new ServiceError('unsupported', `the disk format "${name}" cannot be opened or written; ${names} can`, { format: name })
}

/** Formats of which a machine is given the file as it is: an optical disc, a kernel, a ramdisk, a root file system. */
export const plainFormats: readonly string[] = ['raw', 'iso', 'ami', 'ari', 'aki']

/** Shows the disk in a file of the format that its owner declared. The bytes never choose the format. */
export async function openImage(name: string, file: BlockSource): Promise<BlockSource> {
  const driver = plainFormats.includes(name) ? raw : formatNamed(name)
  return checked(await driver.open(checked(file, 'file')), name)
}

/** The file of format `name` that would hold `disk`. */
export async function wrapDisk(name: string, disk: BlockSource): Promise<BlockSource> {
  return checked(await formatNamed(name).wrap(checked(disk, 'disk')), `${name} file`)
}
