import type { BlockSource } from '../../disk/block/block-source.ts'
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

/**
 * Looks at all of an upload that a hostile author could have prepared: which formats are in it, its header, every table.
 * Reads tables, never the data. Runs on the worker thread; whatever budget it has is held to by the thread that started it.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function examination(file: BlockSource, declared: string, containerFormat?: string): Promise<Examined> {
  const recognition = await recognise(file)
  const warnings = [...verifyDeclared(declared, recognition, containerFormat)]
  const found = recognition.found.find(({ diskFormat, kind }) => kind === 'disk' && diskFormat === declared)
  const driver = formats.find(({ name }) => name === declared && (found || name === 'raw'))
  if (!driver)
    return {
      format: declared,
      virtualBytes: found?.virtualBytes ?? (plainFormats.includes(declared) ? file.size : null),
      warnings,
    }

  warnings.push(...(await driver.audit(file)))
  const disk = await openImage(driver.name, file)
  return { format: declared, virtualBytes: disk.size, warnings }
}
