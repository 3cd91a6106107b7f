import type { FileTree } from '../filesystems/file-tree.ts'
import { readText } from './places.ts'

export interface CloudInit {
  /** Where it is told not to run; null: it runs. */
  readonly disabledBy: string | null
  /** As `datasource_list` says, the last file that does; null: it looks for all. */
  readonly sources: readonly string[] | null
  /** The file that says so. */
  readonly path: string | null
}

const programs: readonly string[] = ['/usr/bin/cloud-init', '/bin/cloud-init', '/usr/local/bin/cloud-init']
const MAX_FILES = 100

/** Undefined where it is not installed. Source: cloud-init documentation, "Configuration sources", "How to disable cloud-init". */
export async function readCloudInit(tree: FileTree, notes: { add(note: string): void }): Promise<CloudInit | undefined> {
  let isThere = false
  for (const path of programs) isThere ||= (await tree.find(path)) !== undefined
  if (!isThere) return undefined
  const names: string[] = []
  for await (const { name } of tree.list('/etc/cloud/cloud.cfg.d'))
    if (name.endsWith('.cfg') && names.length < MAX_FILES) names.push(name)
  let [sources, path]: [readonly string[] | null, string | null] = [null, null]
  for (const file of ['/etc/cloud/cloud.cfg', ...names.sort().map((name) => `/etc/cloud/cloud.cfg.d/${name}`)]) {
    const text = await readText(tree, file, notes)
    const said = text === undefined ? undefined : sourcesIn(text)
    if (said) [sources, path] = [said, file]
  }
  const disabled = '/etc/cloud/cloud-init.disabled'
  return { disabledBy: (await tree.find(disabled)) ? disabled : null, sources, path }
}

/** A list of YAML in either of its forms; other forms are not understood, and say nothing. */
function sourcesIn(text: string): readonly string[] | undefined {
  const inLine = /^datasource_list:[ \t]*\[([^\]]{0,2000})\]/m.exec(text)?.[1]
  const words = (list: readonly string[]) =>
    list.map((word) => word.trim().replace(/^['"]|['"]$/g, '')).filter((word) => word !== '')
  if (inLine !== undefined) return words(inLine.split(','))
  const lines = text.split('\n')
  const at = lines.findIndex((line) => /^datasource_list:\s*(#.*)?$/.test(line))
  if (at < 0) return undefined
  const items: string[] = []
  for (const line of lines.slice(at + 1, at + 101)) {
    const item = /^\s*-\s*([^#]*)/.exec(line)?.[1]
    if (item === undefined) break
    items.push(item)
  }
  return words(items)
}
