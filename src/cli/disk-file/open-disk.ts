import { basename } from 'node:path'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { checked } from '../../disk/block/checked.ts'
import type { Inside } from '../../disk/containers/index.ts'
import {
  type FormatDriver,
  formatNamed,
  type InternalSnapshot,
  type OpenOptions,
  openImage,
  plainFormats,
  type Recognition,
  recognise,
  suggestedFormat,
  verifyDeclared,
} from '../../disk/formats/index.ts'
import { UsageError } from '../exit-codes.ts'
import type { TransferState } from '../progress.ts'
import { formatWord } from './format-words.ts'
import type { MemberWish, OpenFile } from './open-file.ts'

export interface DiskWish {
  /** A path, an address, or `-`. */
  readonly source: string
  /** What the owner says it is; absent: what is found. */
  readonly from?: string | undefined
  /** Id or name of an internal snapshot. */
  readonly snapshot?: string | undefined
  /** What it is a difference to, the nearest first. */
  readonly parents?: readonly string[]
  /** The other files of a disk that is in several. */
  readonly parts?: readonly string[]
  /** Of an archive. */
  readonly member?: string | undefined
  /** The option that says it; absent: `--member`. */
  readonly memberOption?: string
}

/** A file whose bytes were looked at, and that is what it says. */
export interface Recognised {
  readonly recognition: Recognition
  /** Glance `disk_format`. */
  readonly format: string
  /** For people, one sentence each. */
  readonly notes: readonly string[]
}
export interface OpenedDisk extends Recognised {
  /** What it was in. */
  readonly inside: Inside
  /** Closing it closes all files. */
  readonly disk: BlockSource
}

type OnProgress = (state: TransferState) => void

/**
 * The disk in a file, whatever is around it, after everything in its tables was looked at. Nothing that a file names is opened: what
 * belongs to it is given.
 * @throws ServiceError `invalid-image` | `unsupported`: the file is not what it is said to be, or hostile; `not-found`
 */
export async function openDisk(wish: DiskWish, openFile: OpenFile, onProgress?: OnProgress): Promise<OpenedDisk> {
  const file = await openFile(wish.source)
  const inside = await file.inside(memberWish(wish))
  try {
    return await openDiskIn(inside, wish, openFile, onProgress)
  } catch (error) {
    await inside.file.close()
    throw error
  }
}
export const memberWish = ({ member, memberOption = '--member' }: DiskWish): MemberWish => ({
  name: member,
  option: memberOption,
})

/** The same of what lies in a file, which stays open where this fails. */
export async function openDiskIn(
  inside: Inside,
  wish: DiskWish,
  openFile: OpenFile,
  onProgress?: OnProgress,
): Promise<OpenedDisk> {
  await using opened = new AsyncDisposableStack()
  const { file, declaredFormat, appliance } = inside
  const given = await openGiven(wish, inside, openFile, opened, onProgress)
  const isGiven = given.parent !== undefined || given.parts !== undefined
  const { recognition, format, notes } = await recogniseFile(file, wish.from ?? declaredFormat ?? undefined, isGiven)
  const warnings = await auditOf(file, format, given, onProgress)
  const snapshot = wish.snapshot === undefined ? undefined : await snapshotOf(driverOf(format), file, wish.snapshot)
  const disk = await openImage(format, file, { ...given, snapshot })
  opened.move()
  return { inside, recognition, format, notes: [...new Set([...(appliance?.warnings ?? []), ...notes, ...warnings])], disk }
}

/**
 * Looks at everything in the tables of a file, before its disk is opened.
 * @returns what is odd and may be, one sentence each
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export const auditOf = (
  file: BlockSource,
  format: string,
  given: OpenOptions,
  onProgress?: OnProgress,
): Promise<readonly string[]> => driverOf(format).audit(watched(checked(file, 'file'), onProgress), given)

/** Tells of the bytes that are read to look at its tables: how many there are is known when all are read. */
function watched(file: BlockSource, onProgress: OnProgress = () => undefined): BlockSource {
  let doneBytes = 0
  return {
    ...file,
    async read(offset, length, into) {
      const bytes = await file.read(offset, length, into)
      doneBytes += length
      onProgress({ phase: 'Looking at tables', doneBytes, totalBytes: null, movedBytes: doneBytes, counts: {} })
      return bytes
    },
  }
}

/** What is opened beside the file is closed with `opened`, and, once the disk is open, with the disk. */
async function openGiven(
  { parents = [], parts = [] }: DiskWish,
  inside: Inside,
  openFile: OpenFile,
  opened: AsyncDisposableStack,
  onProgress: OnProgress | undefined,
): Promise<OpenOptions> {
  const [parent, ...further] = parents
  const below =
    parent === undefined ? undefined : (await openDisk({ source: parent, parents: further }, openFile, onProgress)).disk
  if (below) opened.defer(() => below.close())
  if (parts.length === 0) return { parent: below, parts: inside.parts }
  const byName = new Map<string, BlockSource>(inside.parts)
  for (const part of parts) {
    const name = basename(part)
    if (byName.has(name)) throw new UsageError(`two parts have the name "${name}"`)
    const { source } = await openFile(part)
    opened.defer(() => source.close())
    byName.set(name, checked(source, name))
  }
  return { parent: below, parts: byName }
}

/**
 * Holds the bytes to what they are said to be, or to the one format in them.
 * @param isGiven what the file refers to was given: then its driver says whether that is all of it
 */
export async function recogniseFile(source: BlockSource, from: string | undefined, isGiven = false): Promise<Recognised> {
  if (source.size === 0) throw new ServiceError('invalid-image', 'the file is empty', { reason: 'truncated' })
  const recognition = await recognise(checked(source, 'file'))
  const format = from === undefined ? (suggestedFormat(recognition) ?? 'raw') : formatWord(from)
  const notes = verifyDeclared(format, recognition, 'bare', { isGiven })
  return { recognition, format, notes }
}

export const driverOf = (format: string): FormatDriver => formatNamed(plainFormats.includes(format) ? 'raw' : format)

async function snapshotOf(driver: FormatDriver, file: BlockSource, wanted: string): Promise<string> {
  const snapshots = (await driver.snapshots?.(checked(file, 'file'))) ?? []
  const [byId] = snapshots.filter(({ id }) => id === wanted)
  const named = snapshots.filter(({ name }) => name === wanted)
  const found = byId ?? (named.length === 1 ? named[0] : undefined)
  if (found) return found.id
  const list = snapshots.map(described).join(', ')
  const why =
    named.length > 1 ? `${named.length} snapshots are called "${wanted}": give the id` : `there is no snapshot "${wanted}"`
  throw new ServiceError('not-found', `${why}; the file has ${list || 'none'}`)
}

const described = ({ id, name }: InternalSnapshot): string => (name === '' ? id : `${id} (${name})`)

/** What a person can do about a reference that was not followed. */
export function withAdvice(error: unknown, advice = GIVE): unknown {
  if (!isServiceError(error) || error.details.reason !== 'external-reference') return error
  return new ServiceError(error.code, `${error.message}\n${advice}`, error.details, { cause: error })
}
export const GIVE =
  'Or give what it is a difference to with --parent, its other files with --part: nothing that it names is opened.'
