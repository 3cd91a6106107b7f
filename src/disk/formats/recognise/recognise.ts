import { isServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { archiveSignatures } from './archives.ts'
import { contentSignatures } from './content.ts'
import { microsoftSignatures } from './microsoft.ts'
import { opticalSignatures } from './optical.ts'
import { qemuSignatures } from './qemu.ts'
import { type Found, type Inspected, Look, type Recognition, type Signature } from './recognition.ts'
import { virtualboxSignatures } from './virtualbox.ts'
import { vmwareSignatures } from './vmware.ts'

const signatures: readonly Signature[] = [
  ...qemuSignatures,
  ...vmwareSignatures,
  ...microsoftSignatures,
  ...virtualboxSignatures,
  ...opticalSignatures,
  ...contentSignatures,
  ...archiveSignatures,
]

/**
 * Finds every format that the bytes of a file match. Reads 73 KiB and, of formats that need it, some more of their header
 * (at most 1.2 MiB). What is wrong with a header is in `refusal`; errors of `file` itself pass through.
 */
export async function recognise(file: BlockSource): Promise<Recognition> {
  const look = await Look.at(file)
  const found: Found[] = []
  for (const signature of signatures) {
    const offset = signature.find(look)
    if (offset !== undefined) found.push(await inspected(signature, look, offset))
  }
  return { fileBytes: file.size, found }
}

async function inspected({ name, kind, diskFormat, inspect }: Signature, look: Look, offset: number): Promise<Found> {
  const known = { name, kind, diskFormat, offset }
  try {
    const result: Inspected = (await inspect?.(look, offset)) ?? {}
    return {
      ...known,
      virtualBytes: result.virtualBytes ?? null,
      plain: result.plain ?? false,
      note: result.note ?? null,
      refusal: null,
    }
  } catch (error) {
    if (!isServiceError(error, 'invalid-image') && !isServiceError(error, 'unsupported')) throw error
    return { ...known, virtualBytes: null, plain: false, note: null, refusal: error }
  }
}
