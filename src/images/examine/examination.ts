import type { BlockSource } from '../../disk/block/block-source.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { formats, openImage, plainFormats, recognise, verifyDeclared } from '../../disk/formats/index.ts'

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
}

/**
 * Looks at all of an upload that a hostile author could have prepared: which formats are in it, its header, every table.
 * Reads tables, never the data. Runs on the worker thread; whatever budget it has is held to by the thread that started it.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function examination(
  file: BlockSource,
  declared: string,
  { containerFormat, parentBytes }: ExaminedAs = {},
): Promise<Examined> {
  const recognition = await recognise(file)
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
