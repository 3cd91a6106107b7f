import { ServiceError } from '../../../../base/errors.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import type { Found } from '../../filesystems/file-tree.ts'
import type { Notes } from '../notes.ts'
import type { Package } from '../package.ts'

/** Knows files of one language by which packages are there. */
export interface LanguageReader {
  /** For people. */
  readonly name: string
  /** Whether a regular file may tell of packages: by its path and facts, without a read. */
  wants(found: Found): boolean
  /**
   * @param file as `wants` found it; a program that is none of this language has no packages
   * @throws ServiceError where it is damaged, or beyond a limit
   */
  read(file: BlockSource, path: string, notes: Notes): Promise<readonly Package[]>
}

export const refuse = (problem: string): ServiceError => new ServiceError('invalid-image', problem, { reason: 'malformed' })

const MAX_CHARACTERS = 1024

/** A package that is not of a distribution; undefined without a name or a version. */
export function languagePackage(kind: Package['kind'], name: unknown, version: unknown, path: string): Package | undefined {
  if (typeof name !== 'string' || typeof version !== 'string' || name === '' || version === '') return undefined
  if (name.length > MAX_CHARACTERS || version.length > MAX_CHARACTERS) return undefined
  return { kind, name, version, architecture: null, source: null, installedBytes: null, path }
}

/** The whole of a small file. @throws ServiceError `too-large` */
export async function bytesOf(file: BlockSource, maxBytes: number): Promise<Buffer> {
  if (file.size > maxBytes) throw new ServiceError('too-large', `it has ${file.size} bytes, more than ${maxBytes}`, { maxBytes })
  const bytes = await file.read(0, file.size)
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** @throws ServiceError `invalid-image` where it is no JSON */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw refuse(`it is no JSON: ${error instanceof Error ? error.message : ''}`)
  }
}

/** What follows `Name:` or `Name=` in the first line that begins so, in any case; read by lines, for an expression may take for ever. */
export function fieldOf(lines: readonly string[], name: string): string | undefined {
  for (const line of lines) {
    const after = line.trimStart()
    if (after.length <= name.length || after.slice(0, name.length).toLowerCase() !== name.toLowerCase()) continue
    const rest = after.slice(name.length).trim()
    if (rest.startsWith(':') || rest.startsWith('=')) return rest.slice(1).trim() || undefined
  }
  return undefined
}

/** A member of what may be any JSON. */
export const memberOf = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
