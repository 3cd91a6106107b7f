import { ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlockSource } from '../block/block-source.ts'
import { paged } from '../filters/paged.ts'
import { type Account, readAccounts } from './customisation/accounts.ts'
import { type ChangedFiles, readChangedFiles } from './customisation/changed-files.ts'
import { type Repository, readRepositories } from './customisation/repositories.ts'
import { type EnabledService, readServices } from './customisation/services.ts'
import type { FileTree } from './filesystems/file-tree.ts'
import type { PartitionTable } from './partitions/list.ts'
import { readSoftware } from './software/index.ts'
import type { Package } from './software/package.ts'
import { type OperatingSystem, readOperatingSystem } from './system/operating-system.ts'
import { findSystems, type GuestSystem } from './system/systems.ts'
import { readLayout, type Volume } from './volumes/volumes.ts'

/** What a disk holds, as facts alone: it can be written down and sent. Strings are the guest's, to be shown inert. */
export interface Anatomy {
  readonly table: PartitionTable | null
  readonly volumes: readonly VolumeFacts[]
  /** Operating systems, in the order of their volumes. */
  readonly systems: readonly SystemFacts[]
}

export interface VolumeFacts {
  /** `partition 1`, `disk`, `group/volume`. */
  readonly name: string
  /** Bytes of the disk; null where it is not one stretch. */
  readonly offset: number | null
  readonly bytes: number
  /** Of the table; null where it is none. */
  readonly partition: number | null
  /** `TYPE` of `blkid`; null where nothing is known. */
  readonly type: string | null
  readonly label: string
  readonly uuid: string
  /** Of a file system; null where that is not known. */
  readonly usedBytes: number | null
  readonly totalBytes: number | null
  /** Why it cannot be looked into, what is odd about it; a sentence each. */
  readonly notes: readonly string[]
}

/** What could not be read is null, and a note says why. */
export interface SystemFacts {
  readonly family: GuestSystem['family']
  /** That its root is on. */
  readonly volume: string
  readonly os: OperatingSystem | null
  /** Where the volumes of this disk are mounted. */
  readonly mounts: readonly { readonly path: string; readonly volume: string | null }[]
  readonly accounts: readonly Account[] | null
  readonly services: readonly EnabledService[] | null
  readonly repositories: readonly Repository[] | null
  /** Null also where no packaging system keeps digests of them. */
  readonly changedFiles: ChangedFiles | null
  readonly software: InstalledSoftware | null
  readonly notes: readonly string[]
}

export interface InstalledSoftware {
  readonly packages: readonly Package[]
  /** Why it is not all that is installed, a sentence each; none: it is. */
  readonly failures: readonly string[]
}

/** What is read at a time and kept of it: 64 KiB are a chunk of a store. */
const PAGES = { pageBytes: 64 * KiB, maxBytes: 16 * MiB }

/** Reads what a disk holds. The disk stays the caller's. What is damaged hides nothing else. @throws ServiceError of the disk itself, and what `signal` aborts with */
export async function readAnatomy(disk: BlockSource, { signal }: { readonly signal?: AbortSignal } = {}): Promise<Anatomy> {
  const layout = await readLayout(paged(PAGES)(disk))
  const systems: SystemFacts[] = []
  for (const system of await findSystems(layout)) {
    signal?.throwIfAborted()
    systems.push(await factsOf(system, signal))
  }
  return { table: layout.table ?? null, volumes: layout.volumes.map(volumeFacts), systems }
}

function volumeFacts({ name, offset, bytes, partition, content }: Volume): VolumeFacts {
  const about = { name, offset, bytes, partition: partition?.number ?? null }
  const empty = { type: null, label: '', uuid: '', usedBytes: null, totalBytes: null, notes: [] }
  if (content.kind === 'files') {
    const { type, label, uuid, totalBytes, freeBytes, notes } = content.files
    return { ...about, type, label, uuid, totalBytes, usedBytes: freeBytes === null ? null : totalBytes - freeBytes, notes }
  }
  if (content.kind === 'other') {
    const { type, label, uuid, note } = content
    return { ...about, ...empty, type, label, uuid, notes: note === '' ? [] : [note] }
  }
  return { ...about, ...empty, notes: content.kind === 'damaged' ? [content.error.message] : [] }
}

async function factsOf(system: GuestSystem, signal: AbortSignal | undefined): Promise<SystemFacts> {
  const { family, tree } = system
  const notes = [...system.notes]
  const part = async <Value>(what: string, read: (tree: FileTree) => Promise<Value>): Promise<Value | null> => {
    signal?.throwIfAborted()
    try {
      return await read(tree)
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code === 'cancelled') throw error
      notes.push(`${what} could not be read: ${error.message}`)
      return null
    }
  }
  const about = {
    family,
    volume: system.volume.name,
    mounts: system.mounts.map(({ entry, volume }) => ({ path: entry.path, volume: volume?.name ?? null })),
  }
  if (family === 'windows') {
    notes.push('it is a Windows, whose registry is not read: what is known is its volume alone')
    return { ...about, os: null, accounts: null, services: null, repositories: null, changedFiles: null, software: null, notes }
  }
  const os = await part('the release of the system', readOperatingSystem)
  const accounts = await part('accounts', readAccounts)
  const services = await part('enabled services', readServices)
  const repositories = await part('repositories', readRepositories)
  const changedFiles = (await part('changed configuration files', readChangedFiles)) ?? null
  const found = await part('what is installed', (tree) => readSoftware({ tree }))
  notes.push(...(changedFiles?.notes ?? []), ...(found?.notes ?? []))
  const software = found && { packages: found.packages, failures: found.failures.map(({ message }) => message) }
  return { ...about, os, accounts, services, repositories, changedFiles, software, notes }
}
