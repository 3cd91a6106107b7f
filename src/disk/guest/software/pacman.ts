import { ServiceError } from '../../../base/errors.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { linesOf } from './lines.ts'
import { Notes } from './notes.ts'
import type { Package, PackageReader } from './package.ts'

/** A folder for each package, with a file `desc`. Source: libalpm, lib/libalpm/be_local.c. */
const FOLDER = '/var/lib/pacman/local'
const VERSION_FILE = 'ALPM_DB_VERSION'
const MAX_DESCRIPTION_BYTES = MiB
const MAX_PACKAGES = 200_000
const wanted: readonly string[] = ['%NAME%', '%VERSION%', '%BASE%', '%ARCH%', '%SIZE%']

/** Arch Linux and what is made of it. */
export const pacman: PackageReader = {
  name: 'pacman',
  async read(tree) {
    const folder = await tree.find(FOLDER)
    if (folder?.node.kind !== 'directory') return undefined
    const packages: Package[] = []
    const notes = new Notes()
    for await (const { name } of folder.fileSystem.list(folder.node)) {
      if (name === VERSION_FILE) continue
      if (packages.length >= MAX_PACKAGES) {
        notes.add(`${FOLDER} has more than ${MAX_PACKAGES} packages; the rest is left out`)
        break
      }
      try {
        packages.push(await packageIn(tree, `${FOLDER}/${name}`))
      } catch (error) {
        if (!(error instanceof ServiceError)) throw error
        notes.add(`${FOLDER}/${name}: ${error.message}`)
      }
    }
    packages.sort((a, b) => (a.path < b.path ? -1 : 1))
    return { packages, notes: notes.list }
  },
}

async function packageIn(tree: FileTree, folder: string): Promise<Package> {
  const path = `${folder}/desc`
  const file = await tree.open(path)
  if (!file) throw new ServiceError('invalid-image', 'the package has no desc', { reason: 'malformed' })
  const fields = new Map<string, string>()
  let heading: string | null = null
  for await (const line of linesOf(file, { path, maxBytes: MAX_DESCRIPTION_BYTES })) {
    if (heading !== null && line !== '') fields.set(heading, line.slice(0, KiB))
    heading = wanted.includes(line) ? line : null
  }
  const [name, version, base] = [fields.get('%NAME%'), fields.get('%VERSION%'), fields.get('%BASE%')]
  if (!name || !version)
    throw new ServiceError('invalid-image', `its desc has no ${name ? 'version' : 'name'}`, { reason: 'malformed' })
  const bytes = fields.get('%SIZE%') ?? ''
  return {
    kind: 'alpm',
    name,
    version,
    architecture: fields.get('%ARCH%') ?? null,
    source: base && base !== name ? { name: base, version } : null,
    installedBytes: /^\d{1,15}$/.test(bytes) ? Number(bytes) : null,
    path,
  }
}
