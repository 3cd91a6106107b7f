import { randomUUID } from 'node:crypto'
import { lstat, mkdir, open, readdir, readFile, realpath, rename, unlink } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { ServiceError } from '../../../base/errors.ts'
import { lockFolder } from '../../../base/folder-lock.ts'
import type { BackupTarget } from '../backup-target.ts'
import { FsBlobStore } from './fs-blob-store.ts'

/** Marks a folder as a backup, and says whether it is whole. */
const MARKER = 'backup.json'
const BLOBS = 'store' // as in a data folder: a backup is a data folder that lacks its databases
const FOLDER_MODE = 0o700
const FILE_MODE = 0o600

interface Marker {
  readonly format: 'imprint-backup'
  readonly version: 1
  /** ISO 8601. */
  readonly startedAt: string
  /** Null while a backup runs, and after one that was cut short. */
  readonly completedAt: string | null
}

/**
 * A folder of this machine that takes a backup: a new or empty one, or one that holds an earlier backup. The service writes it
 * with its own rights at the word of an administrator who may sit elsewhere, so nothing else is touched: no folder that holds
 * anything else, none that a symbolic link leads to, none around or inside the data folder.
 * @throws ServiceError `invalid-request` for a folder that is none of these; `conflict` where another backup writes it now, or
 *   where a service was started in it
 */
export async function openBackupFolder(folder: string, dataFolder: string, now: () => number = Date.now): Promise<BackupTarget> {
  await assertPlace(folder, dataFolder)
  await prepare(folder)
  const unlock = lockFolder(join(folder, 'lock'))
  try {
    const startedAt = new Date(now()).toISOString()
    const marker: Marker = { format: 'imprint-backup', version: 1, startedAt, completedAt: null }
    await writeMarker(folder, marker)
    const blobs = await FsBlobStore.open(join(folder, BLOBS))
    return {
      blobs,
      complete: () => writeMarker(folder, { ...marker, completedAt: new Date(now()).toISOString() }),
      async close() {
        await blobs.close()
        unlock()
      },
    }
  } catch (error) {
    unlock()
    throw error
  }
}

async function assertPlace(folder: string, dataFolder: string): Promise<void> {
  if (!isAbsolute(folder) || folder.includes('\0')) {
    throw refused('takes the whole path of a folder on the machine of the service, from / on')
  }
  if (resolve(folder) !== folder) throw refused(`is to be written without "." , ".." and a slash at the end: ${resolve(folder)}`)
  const above = dirname(folder)
  const real = await realpath(above).catch((error: unknown) => {
    throw refused(`lies in ${above}, which cannot be entered (${codeOf(error)}); make that folder first`)
  })
  if (real !== above) throw refused(`is reached by a symbolic link; say ${join(real, relative(above, folder))}`)
  const data = await realpath(dataFolder)
  if (lies(folder, data) || lies(data, folder)) throw refused('is to lie outside the data folder of the service')
}

/** Makes the folder, or assures itself that it is one of ours. */
async function prepare(folder: string): Promise<void> {
  const status = await lstat(folder).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return undefined
    throw refused(`cannot be looked at (${codeOf(error)})`)
  })
  if (!status) {
    await mkdir(folder, { mode: FOLDER_MODE }).catch((error: unknown) => {
      throw refused(`cannot be made (${codeOf(error)}): let the service write there (under systemd, ReadWritePaths= of its unit)`)
    })
    return
  }
  if (!status.isDirectory()) throw refused('is no folder')
  const names = await readdir(folder).catch((error: unknown) => {
    throw refused(`cannot be read (${codeOf(error)})`)
  })
  if (names.length === 0) return
  await assertMarker(folder)
  if (names.includes('catalog.db')) {
    throw new ServiceError('conflict', 'a service was started in this backup, so it is none any more; choose another folder')
  }
  const blobs = await lstat(join(folder, BLOBS)).catch(() => undefined)
  if (blobs && !blobs.isDirectory()) throw refused(`holds a "${BLOBS}" that is no folder`)
}

async function assertMarker(folder: string): Promise<void> {
  const path = join(folder, MARKER)
  const status = await lstat(path).catch(() => undefined)
  const text = status?.isFile() && status.size < 4096 ? await readFile(path, 'utf8').catch(() => '') : ''
  const found = parsed(text)
  if (found?.format !== 'imprint-backup') throw refused('holds something that is no backup of Imprint; choose another')
  if (found.version !== 1) throw refused(`holds a backup of version ${Number(found.version)}, which this program does not know`)
}

function parsed(text: string): { readonly format?: unknown; readonly version?: unknown } | null {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** Whole or not at all: the old one stands until the new one is on the disk. */
async function writeMarker(folder: string, marker: Marker): Promise<void> {
  const unfinished = join(folder, `.${MARKER}-${randomUUID()}`)
  try {
    const file = await open(unfinished, 'wx', FILE_MODE)
    try {
      await file.writeFile(`${JSON.stringify(marker, null, 2)}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(unfinished, join(folder, MARKER))
    const here = await open(folder, 'r')
    await here.sync().finally(() => here.close())
  } catch (cause) {
    await unlink(unfinished).catch(() => undefined)
    const code = codeOf(cause)
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new ServiceError('no-space', 'the disk of the backup is full', { code }, { cause })
    throw new ServiceError('unavailable', `the folder of the backup cannot be written (${code})`, { code }, { cause })
  }
}

/** Whether `inner` is `outer` or below it. */
const lies = (inner: string, outer: string): boolean => {
  const path = relative(outer, inner)
  return path === '' || (path !== '..' && !path.startsWith('../'))
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException | null)?.code ?? 'unknown'

const refused = (what: string): ServiceError => new ServiceError('invalid-request', `the folder of a backup ${what}`)
