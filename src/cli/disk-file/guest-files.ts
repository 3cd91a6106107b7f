import { ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import { paged } from '../../disk/filters/paged.ts'
import type { FileNode } from '../../disk/guest/filesystems/file-system.ts'
import { FileTree, type Found } from '../../disk/guest/filesystems/file-tree.ts'
import { findSystems } from '../../disk/guest/system/systems.ts'
import { readLayout, type Volume } from '../../disk/guest/volumes/volumes.ts'
import type { OptionSpec } from '../command.ts'
import type { TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'
import { type DiskWish, openDisk } from './open-disk.ts'
import type { OpenFile } from './open-file.ts'

/** Of the commands that look at the files of a disk. */
export const volumeOption = {
  volume: {
    type: 'text',
    value: 'NAME',
    help: 'the files of this part of the disk alone, as "partition 2" or its label (default: what the system on it sees)',
  },
} as const satisfies Record<string, OptionSpec>

/** The files on a disk. */
export interface GuestFiles extends AsyncDisposable {
  readonly tree: FileTree
  /** What could not be read or found, for people. */
  readonly notes: readonly string[]
}

/**
 * The files of the system on the disk in a file, with everything that it mounts of it; of the only file system where there is no system.
 * Nothing is mounted here and nothing is run.
 * @throws ServiceError of the disk; `not-found` where there are no files, or no such volume
 */
export async function openGuestFiles(
  wish: DiskWish & { readonly volume: string | undefined },
  openFile: OpenFile,
  onProgress: (state: TransferState) => void,
): Promise<GuestFiles> {
  const { disk, notes } = await openDisk(wish, openFile, onProgress)
  try {
    const layout = await readLayout(paged({ pageBytes: 64 * KiB, maxBytes: 4 * MiB })(disk))
    const opened =
      wish.volume === undefined
        ? await wholeTree(layout.volumes, layout)
        : { tree: treeOf(volumeOf(wish.volume, layout.volumes)), notes: [] }
    return { tree: opened.tree, notes: [...notes, ...opened.notes], [Symbol.asyncDispose]: () => disk.close() }
  } catch (error) {
    await disk.close()
    throw error
  }
}

async function wholeTree(
  volumes: readonly Volume[],
  layout: Parameters<typeof findSystems>[0],
): Promise<{ tree: FileTree; notes: readonly string[] }> {
  const [system, ...others] = await findSystems(layout)
  if (system) {
    const more = others.map(
      ({ volume }) => `there is another system on ${volume.name}: look at it with --volume "${volume.name}"`,
    )
    return { tree: system.tree, notes: [...system.notes, ...more] }
  }
  const withFiles = volumes.filter(({ content }) => content.kind === 'files')
  if (withFiles.length === 1) return { tree: treeOf(withFiles[0]!), notes: [] }
  throw new ServiceError(
    'not-found',
    withFiles.length === 0
      ? `there are no files that can be read: the disk has ${volumes.map(describe).join(', ') || 'no volumes'}`
      : `there is no operating system, and more than one file system; choose one with --volume: ${withFiles.map(describe).join(', ')}`,
  )
}

function volumeOf(name: string, volumes: readonly Volume[]): Volume {
  const found = volumes.find((each) => each.name === name || (each.content.kind === 'files' && each.content.files.label === name))
  if (found) return found
  throw new ServiceError(
    'not-found',
    `there is no volume "${safeText(name)}"; the disk has ${volumes.map(describe).join(', ') || 'none'}`,
  )
}

function treeOf(volume: Volume): FileTree {
  const { content } = volume
  if (content.kind === 'files') return new FileTree(content.files)
  if (content.kind === 'damaged') throw content.error
  throw new ServiceError('not-found', `there are no files on ${describe(volume)}`)
}

/** `partition 2 (ext4)`. */
function describe({ name, content }: Volume): string {
  if (content.kind === 'files') return `${name} (${content.files.type})`
  if (content.kind === 'other') return `${name} (${content.type}${content.note === '' ? '' : `: ${content.note}`})`
  return content.kind === 'damaged' ? `${name} (damaged: ${content.error.message})` : `${name} (nothing that is known)`
}

/** @throws ServiceError `not-found` where nothing is there */
export async function mustFind(tree: FileTree, path: string, followsLast = true): Promise<Found> {
  const found = await tree.find(path, followsLast)
  if (found) return found
  throw new ServiceError('not-found', `there is no "${safeText(path)}" on the disk`)
}

const letters = { file: '-', directory: 'd', symlink: 'l', character: 'c', block: 'b', fifo: 'p', socket: 's' } as const

/** `drwxr-xr-x`, as ls(1) prints it. */
export function modeText({ kind, mode }: FileNode): string {
  const triple = (shift: number, special: number, letter: string) => {
    const bits = (mode >> shift) & 7
    const isSpecial = (mode & special) !== 0
    const last = isSpecial ? ((bits & 1) !== 0 ? letter : letter.toUpperCase()) : (bits & 1) !== 0 ? 'x' : '-'
    return `${bits & 4 ? 'r' : '-'}${bits & 2 ? 'w' : '-'}${last}`
  }
  return `${letters[kind]}${triple(6, 0o4000, 's')}${triple(3, 0o2000, 's')}${triple(0, 0o1000, 't')}`
}

/** A file as programs get it. */
export interface ListedFile {
  readonly path: string
  readonly kind: FileNode['kind']
  readonly mode: string
  readonly uid: number
  readonly gid: number
  readonly bytes: number
  readonly links: number
  /** ISO 8601, in UTC; null where it is not kept. */
  readonly modified: string | null
  /** Of a symbolic link. */
  readonly target: string | null
}

export async function listed({ path, node, fileSystem }: Found): Promise<ListedFile> {
  const { kind, uid, gid, bytes, links, modifiedNs } = node
  return {
    path,
    kind,
    mode: node.mode.toString(8).padStart(4, '0'),
    uid,
    gid,
    bytes,
    links,
    modified: isoTime(modifiedNs),
    target: kind === 'symlink' ? await fileSystem.readLink(node) : null,
  }
}

const MAX_DATE_MS = 8_640_000_000_000_000n // ECMAScript: what a Date can hold

function isoTime(ns: bigint | null): string | null {
  if (ns === null) return null
  const ms = ns / 1_000_000n
  return ms > MAX_DATE_MS || ms < -MAX_DATE_MS ? null : new Date(Number(ms)).toISOString()
}
