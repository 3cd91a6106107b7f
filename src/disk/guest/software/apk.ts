import { KiB, MiB } from '../../../base/units.ts'
import { linesOf } from './lines.ts'
import { Notes } from './notes.ts'
import type { Package, PackageReader } from './package.ts'

/** Source: apk-tools, doc/apk-package.5 and src/database.c, apk_db_index_read. The second is that of apk 3 where /lib is a part of /usr. */
const databases: readonly string[] = ['/lib/apk/db/installed', '/usr/lib/apk/db/installed']
const MAX_BYTES = 256 * MiB
const MAX_PACKAGES = 200_000
/** Package, version, architecture, installed bytes, origin. Files follow in other letters. */
const wanted = 'PVAIo'

/** Alpine and what is made of it. */
export const apk: PackageReader = {
  name: 'apk',
  async read(tree) {
    for (const path of databases) {
      const file = await tree.open(path)
      if (!file) continue
      const packages: Package[] = []
      const notes = new Notes()
      for await (const fields of stanzasOf(linesOf(file, { path, maxBytes: MAX_BYTES }))) {
        if (packages.length >= MAX_PACKAGES) {
          notes.add(`${path} has more than ${MAX_PACKAGES} packages; the rest is left out`)
          break
        }
        const found = packageOf(fields, path)
        if (typeof found === 'string') notes.add(found)
        else packages.push(found)
      }
      return { packages, notes: notes.list }
    }
    return undefined
  },
}

/** Letters of a stanza with what they say. */
async function* stanzasOf(lines: AsyncIterable<string>): AsyncGenerator<ReadonlyMap<string, string>> {
  let fields = new Map<string, string>()
  let isEmpty = true
  for await (const line of lines) {
    if (line === '') {
      if (!isEmpty) yield fields
      ;[fields, isEmpty] = [new Map(), true]
      continue
    }
    isEmpty = false
    if (line[1] === ':' && wanted.includes(line[0]!)) fields.set(line[0]!, line.slice(2, 2 + KiB))
  }
  if (!isEmpty) yield fields
}

function packageOf(fields: ReadonlyMap<string, string>, path: string): Package | string {
  const [name, version, origin] = [fields.get('P'), fields.get('V'), fields.get('o')]
  if (!name || !version) return `${path}: a package without a ${name ? 'version' : 'name'}: ${name ?? version ?? ''}`
  const bytes = fields.get('I') ?? ''
  return {
    kind: 'apk',
    name,
    version,
    architecture: fields.get('A') ?? null,
    source: origin && origin !== name ? { name: origin, version } : null,
    installedBytes: /^\d{1,15}$/.test(bytes) ? Number(bytes) : null,
    path,
  }
}
