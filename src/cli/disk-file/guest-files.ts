import { ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { paged } from '../../disk/filters/paged.ts'
import type { FileNode } from '../../disk/guest/filesystems/file-system.ts'
import { FileTree, type Found } from '../../disk/guest/filesystems/file-tree.ts'
import { findSystems } from '../../disk/guest/system/systems.ts'
import { type DiskLayout, readLayout, type Volume } from '../../disk/guest/volumes/volumes.ts'
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

type Family = 'linux' | 'windows'

/** The files on a disk. */
export interface GuestFiles extends AsyncDisposable {
  readonly tree: FileTree
  /** What could not be read or found, for people. */
  readonly notes: readonly string[]
  readonly family: Family
  /** File systems of the same disk that the tree does not show. */
  readonly others: readonly { readonly name: string; readonly tree: FileTree; readonly family: Family }[]
  /** Parts of the disk that hold something and have no files that can be read, a sentence each. */
  readonly unseen: readonly string[]
  /** Parts that are used as swap. */
  readonly swap: readonly { readonly name: string; readonly data: BlockSource }[]
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
    const opened = wish.volume === undefined ? await wholeTree(layout) : oneVolume(volumeOf(wish.volume, layout.volumes))
    const others = wish.volume === undefined ? layout.volumes.filter((volume) => !opened.shown.includes(volume)) : []
    return {
      tree: opened.tree,
      family: opened.family,
      notes: [...notes, ...opened.notes],
      others: others.filter(hasFiles).map((volume) => ({ name: volume.name, ...oneVolume(volume) })),
      unseen: others.flatMap(unseenIn),
      swap: others.flatMap(swapIn),
      [Symbol.asyncDispose]: () => disk.close(),
    }
  } catch (error) {
    await disk.close()
    throw error
  }
}

interface OpenedTree {
  readonly tree: FileTree
  readonly family: Family
  readonly notes: readonly string[]
  readonly shown: readonly Volume[]
}

async function wholeTree(layout: DiskLayout): Promise<OpenedTree> {
  const [system, ...others] = await findSystems(layout)
  if (system) {
    const more = others.map(
      ({ volume }) => `there is another system on ${volume.name}: look at it with --volume "${volume.name}"`,
    )
    const mounted = system.mounts.flatMap(({ volume }) => (volume && hasFiles(volume) ? [volume] : []))
    const { tree, family, notes, volume } = system
    return { tree, family, notes: [...notes, ...more], shown: [volume, ...mounted] }
  }
  const withFiles = layout.volumes.filter(({ content }) => content.kind === 'files')
  if (withFiles.length === 1) return oneVolume(withFiles[0]!)
  throw new ServiceError(
    'not-found',
    withFiles.length === 0
      ? `there are no files that can be read: the disk has ${layout.volumes.map(describe).join(', ') || 'no volumes'}`
      : `there is no operating system, and more than one file system; choose one with --volume: ${withFiles.map(describe).join(', ')}`,
  )
}

const oneVolume = (volume: Volume): OpenedTree => {
  const { content } = volume
  const family = content.kind === 'files' && content.files.type === 'ntfs' ? 'windows' : 'linux'
  return { tree: treeOf(volume), family, notes: [], shown: [volume] }
}

const hasFiles = ({ content }: Volume): boolean => content.kind === 'files'

/** Without files, and without what is of a machine: GRUB's own (BIOS boot), and what Windows keeps free. */
const emptyTypes: readonly string[] = ['21686148-6449-6e6f-744e-656564454649', 'e3c9e316-0b5c-4db8-817d-f92df00215ae']
/** Looked at by what they hold: as volumes of their own, or for what was swapped out. */
const followed: readonly string[] = ['LVM2_member', 'swap']

function unseenIn(volume: Volume): string[] {
  const { content, partition } = volume
  if (hasFiles(volume) || (content.kind === 'other' && followed.includes(content.type))) return []
  if (content.kind === 'unknown' && emptyTypes.includes(partition?.type.toLowerCase() ?? '')) return []
  return [`${describe(volume)} has no files that can be read, and was not looked at`]
}

function swapIn({ name, content, data }: Volume): GuestFiles['swap'] {
  return content.kind === 'other' && content.type === 'swap' && data ? [{ name, data }] : []
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
