import { isServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { lookInside, openOva } from '../../disk/containers/index.ts'
import { formats, openImage, plainFormats, recognise, verifyDeclared } from '../../disk/formats/index.ts'

/** How a request names the one of several disks that it means. */
export const CHOOSING = '"member" in "method"'

/** What an upload turned out to be. */
export interface Examined {
  /** Glance `disk_format`, as declared and found. */
  readonly format: string
  /** Size of the disk that a machine sees, in bytes; null where the format does not say. */
  readonly virtualBytes: number | null
  /** One sentence each, for people. */
  readonly warnings: readonly string[]
}

export interface ExaminedAs {
  /** Glance `container_format`; see `verifyDeclared`. */
  readonly containerFormat?: string | undefined
  /** Of the disk that this one is a difference to; absent: it must stand alone. */
  readonly parentBytes?: number | undefined
  /**
   * What is around the disk is looked at instead: archives and descriptors, up to where something would have to be unpacked. `member`: the
   * one that is meant; null: the only one.
   */
  readonly package?: { readonly member: string | null } | undefined
}

/**
 * Looks at all of an upload that a hostile author could have prepared: which formats are in it, its header, every table.
 * Reads tables, never the data. Runs on the worker thread; whatever budget it has is held to by the thread that started it.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function examination(
  file: BlockSource,
  declared: string,
  { containerFormat, parentBytes, package: asPackage }: ExaminedAs = {},
): Promise<Examined> {
  if (asPackage) return packageExamined(file, declared, asPackage.member ?? undefined)
  const recognition = await recognise(file)
  if (containerFormat === 'ova' && recognition.found.some(({ name }) => name === 'ova')) await openOva(file) // kept as it is, and refused where it is none
  const isGiven = parentBytes !== undefined
  const warnings = [...verifyDeclared(declared, recognition, containerFormat, { isGiven })]
  const found = recognition.found.find(({ diskFormat, kind }) => kind === 'disk' && diskFormat === declared)
  const driver = formats.find(({ name }) => name === declared && (found || name === 'raw'))
  if (!driver)
    return {
      format: declared,
      virtualBytes: found?.virtualBytes ?? (plainFormats.includes(declared) ? file.size : null),
      warnings,
    }

  const given = isGiven ? { parent: memorySource(parentBytes, []) } : undefined // tables are looked at, never data
  warnings.push(...(await driver.audit(file, given)))
  const disk = await openImage(driver.name, file, given)
  return { format: declared, virtualBytes: disk.size, warnings }
}

/** Whether a member was chosen before is not known here: both ways are gone, and which disk it is, is for who has all of it to say. */
async function packageExamined(file: BlockSource, declared: string, member: string | undefined): Promise<Examined> {
  for (const wished of new Set([member, undefined])) {
    const unpacking = new Error('not here')
    await lookInside(file, {
      recognise,
      keep: () => Promise.reject(unpacking),
      maxBytes: Number.MAX_SAFE_INTEGER,
      member: wished,
      choosing: CHOOSING,
    }).catch((error: unknown) => {
      if (error !== unpacking && !isAboutChoice(error)) throw error
    })
  }
  return { format: declared, virtualBytes: null, warnings: [] }
}

const isAboutChoice = (error: unknown): boolean =>
  isServiceError(error, 'not-found') ||
  isServiceError(error, 'invalid-request') ||
  (isServiceError(error) && ['several-disks', 'no-disk'].includes(String(error.details.reason)))
