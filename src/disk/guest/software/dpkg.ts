import { KiB, MiB } from '../../../base/units.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { linesOf } from './lines.ts'
import { Notes } from './notes.ts'
import type { Package, PackageReader } from './package.ts'

/** Source: dpkg(1), deb-control(5), Debian Policy, chapter 5. */
const STATUS = '/var/lib/dpkg/status'
/** Of images without dpkg itself: a file for each package. */
const STATUS_FOLDER = '/var/lib/dpkg/status.d'
const MAX_STATUS_BYTES = 256 * MiB
const MAX_PACKAGES = 1_000_000
/** Packages that have files on the disk; the others left their settings at most. */
const present: readonly string[] = [
  'installed',
  'half-configured',
  'unpacked',
  'triggers-awaited',
  'triggers-pending',
  'half-installed',
]
const wanted: readonly string[] = ['Package', 'Version', 'Architecture', 'Status', 'Source', 'Installed-Size']

/** Debian, Ubuntu and what is made of them. */
export const dpkg: PackageReader = {
  name: 'dpkg',
  async read(tree) {
    const packages: Package[] = []
    const notes = new Notes()
    let isThere = false
    for (const path of await statusFiles(tree)) {
      const file = await tree.open(path)
      if (!file) continue
      isThere = true
      const isWhole = path === STATUS
      for await (const stanza of stanzasOf(linesOf(file, { path, maxBytes: MAX_STATUS_BYTES }))) {
        const found = packageOf(stanza, path, isWhole)
        if (typeof found === 'string') notes.add(found)
        else if (found) packages.push(found)
        if (packages.length <= MAX_PACKAGES) continue
        notes.add(`${path} has more than ${MAX_PACKAGES} packages; the rest is left out`)
        return { packages, notes: notes.list }
      }
    }
    return isThere ? { packages, notes: notes.list } : undefined
  },
}

async function statusFiles(tree: FileTree): Promise<string[]> {
  const files = [STATUS]
  for await (const { name } of tree.list(STATUS_FOLDER)) if (!name.endsWith('.md5sums')) files.push(`${STATUS_FOLDER}/${name}`)
  return files
}

/** Fields of a stanza by name, those that are wanted; continued lines are none of them. */
async function* stanzasOf(lines: AsyncIterable<string>): AsyncGenerator<ReadonlyMap<string, string>> {
  let fields = new Map<string, string>()
  for await (const line of lines) {
    if (line.trim() === '') {
      if (fields.size > 0) yield fields
      fields = new Map()
      continue
    }
    const colon = line.indexOf(':')
    if (colon <= 0 || line.startsWith(' ') || line.startsWith('\t')) continue
    const name = line.slice(0, colon)
    if (wanted.includes(name)) fields.set(name, line.slice(colon + 1, colon + 1 + KiB).trim())
  }
  if (fields.size > 0) yield fields
}

/** @returns undefined where it is not installed; a sentence where it cannot be told what it is */
function packageOf(fields: ReadonlyMap<string, string>, path: string, hasStatus: boolean): Package | string | undefined {
  const [name, version, status] = [fields.get('Package'), fields.get('Version'), fields.get('Status')]
  if (hasStatus && !present.includes(status?.split(/\s+/)[2] ?? ''))
    return status === undefined && name ? `${path}: the package ${name} has no Status` : undefined
  if (!name || !version) return `${path}: a package without a ${name ? 'version' : 'name'}: ${name ?? version ?? ''}`
  const kibibytes = Number(fields.get('Installed-Size'))
  return {
    kind: 'deb',
    name,
    version,
    architecture: fields.get('Architecture') ?? null,
    source: sourceOf(fields.get('Source'), name, version),
    installedBytes: Number.isSafeInteger(kibibytes) && kibibytes >= 0 && fields.has('Installed-Size') ? kibibytes * KiB : null,
    path,
  }
}

/** `name`, or `name (version)` where that differs. */
function sourceOf(written: string | undefined, name: string, version: string): Package['source'] {
  const found = /^([^\s(]+)(?:\s*\(([^)]*)\))?/.exec(written ?? '')
  if (!found) return null
  const source = { name: found[1]!, version: found[2] ?? version }
  return source.name === name && source.version === version ? null : source
}
