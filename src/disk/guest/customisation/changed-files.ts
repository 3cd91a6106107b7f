import { createHash } from 'node:crypto'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { linesOf } from '../software/lines.ts'

/** A configuration file that is not as its package brought it. */
export interface ChangedFile {
  readonly path: string
  readonly package: string
  readonly state: 'changed' | 'missing'
}

export interface ChangedFiles {
  readonly files: readonly ChangedFile[]
  /** How many were compared. */
  readonly compared: number
  /** What could not be compared, a sentence each. */
  readonly notes: readonly string[]
}

const STATUS = '/var/lib/dpkg/status'
const MAX_STATUS_BYTES = 256 * MiB
const MAX_FILES = 100_000
/** A configuration of more is none. */
const MAX_FILE_BYTES = 64 * MiB
const READ_BYTES = MiB

/**
 * Configuration files whose md5 is not that which dpkg noted, in the order of its status file. What is obsolete is left out: its package does not
 * bring it any more. Source: deb-conffiles(5), dpkg-query(1) on Conffiles.
 */
export async function readChangedFiles(tree: FileTree): Promise<ChangedFiles | undefined> {
  const status = await tree.open(STATUS)
  if (!status) return undefined
  const files: ChangedFile[] = []
  const notes: string[] = []
  let compared = 0
  for await (const { name, path, md5 } of conffilesOf(linesOf(status, { path: STATUS, maxBytes: MAX_STATUS_BYTES }))) {
    if (compared >= MAX_FILES)
      return { files, compared, notes: [...notes, `more than ${MAX_FILES} configuration files: the rest was not compared`] }
    compared += 1
    const file = await tree.open(path)
    if (!file) files.push({ path, package: name, state: 'missing' })
    else if (file.size > MAX_FILE_BYTES) notes.push(`${path} has ${file.size} bytes and was not compared`)
    else if ((await md5Of(file)) !== md5) files.push({ path, package: name, state: 'changed' })
  }
  return { files, compared, notes }
}

async function* conffilesOf(lines: AsyncIterable<string>): AsyncGenerator<{ name: string; path: string; md5: string }> {
  let [name, isInstalled, isInList] = ['', false, false]
  for await (const line of lines) {
    if (line.startsWith(' ')) {
      const [, path, md5, flag] =
        (isInList && isInstalled && /^ (\/.+) ([0-9a-f]{32})( obsolete| remove-on-upgrade)?$/.exec(line)) || []
      if (path !== undefined && md5 !== undefined && flag === undefined) yield { name, path, md5 }
      continue
    }
    isInList = line === 'Conffiles:'
    if (line === '') [name, isInstalled] = ['', false]
    else if (line.startsWith('Package: ')) name = line.slice('Package: '.length)
    else if (line.startsWith('Status: ')) isInstalled = line.endsWith(' installed')
  }
}

async function md5Of(file: BlockSource): Promise<string> {
  const hash = createHash('md5')
  for (let at = 0; at < file.size; at += READ_BYTES) hash.update(await file.read(at, Math.min(READ_BYTES, file.size - at)))
  return hash.digest('hex')
}
