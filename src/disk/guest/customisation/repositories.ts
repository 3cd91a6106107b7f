import { MiB } from '../../../base/units.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { linesOf } from '../software/lines.ts'

/** Where packages are fetched from. */
export interface Repository {
  readonly system: 'apt' | 'dnf' | 'apk' | 'zypper'
  /** `https://deb.debian.org/debian`, with `$releasever` and the like as they stand; credentials in it are left out. */
  readonly url: string
  /** Suites and components, or the name of the section. */
  readonly parts: string
  readonly isEnabled: boolean
  readonly path: string
}

const MAX_FILE_BYTES = MiB
const MAX_REPOSITORIES = 1000

/** In the order of files and lines. Sources: sources.list(5), dnf.conf(5), apk-repositories(5). */
export async function readRepositories(tree: FileTree): Promise<readonly Repository[]> {
  const found: Repository[] = []
  for (const [folder, read] of [
    ['/etc/apt/sources.list.d', aptOf],
    ['/etc/yum.repos.d', iniOf('dnf')],
    ['/etc/zypp/repos.d', iniOf('zypper')],
    ['/etc/apk/repositories.d', apkOf],
  ] as const) {
    const files = (await Array.fromAsync(tree.list(folder))).map(({ name }) => `${folder}/${name}`).sort()
    const first = { '/etc/apt/sources.list.d': '/etc/apt/sources.list', '/etc/apk/repositories.d': '/etc/apk/repositories' }[
      folder as string
    ]
    for (const path of first === undefined ? files : [first, ...files]) {
      const file = await tree.open(path)
      if (!file) continue
      const lines = await Array.fromAsync(linesOf(file, { path, maxBytes: MAX_FILE_BYTES }))
      found.push(...read(lines, path).slice(0, MAX_REPOSITORIES - found.length))
    }
  }
  return found
}

/** `https://user:secret@host/` says more than where. */
const withoutSecrets = (url: string): string => url.replace(/^([a-z+]+:\/\/)[^/@\s]*@/i, '$1')

function aptOf(lines: readonly string[], path: string): Repository[] {
  if (path.endsWith('.sources')) return deb822Of(lines, path)
  if (!path.endsWith('.list')) return []
  return lines.flatMap((line) => {
    const [, url, parts = ''] = /^\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s*(.*?)\s*(?:#.*)?$/.exec(line) ?? []
    return url === undefined ? [] : [{ system: 'apt', url: withoutSecrets(url), parts, isEnabled: true, path } as const]
  })
}

function deb822Of(lines: readonly string[], path: string): Repository[] {
  const found: Repository[] = []
  let fields = new Map<string, string>()
  let last = ''
  const end = () => {
    const words = (name: string) => (fields.get(name) ?? '').split(/\s+/).filter(Boolean)
    if (words('types').includes('deb')) {
      const parts = [...words('suites'), ...words('components')].join(' ')
      const isEnabled = !['no', 'false', '0'].includes((fields.get('enabled') ?? 'yes').toLowerCase())
      for (const url of words('uris')) found.push({ system: 'apt', url: withoutSecrets(url), parts, isEnabled, path })
    }
    fields = new Map()
  }
  for (const line of lines) {
    if (line.startsWith('#')) continue
    const [, name, value = ''] = /^([A-Za-z-]+):\s*(.*)$/.exec(line) ?? []
    if (line.trim() === '') end()
    else if (name !== undefined) {
      last = name.toLowerCase()
      fields.set(last, value)
    } else if (/^\s/.test(line)) fields.set(last, `${fields.get(last) ?? ''} ${line.trim()}`)
  }
  end()
  return found
}

const iniOf =
  (system: 'dnf' | 'zypper') =>
  (lines: readonly string[], path: string): Repository[] => {
    if (!path.endsWith('.repo')) return []
    const found: Repository[] = []
    let section: { parts: string; url: string; isEnabled: boolean } | undefined
    const end = () => {
      if (section && section.url !== '') found.push({ system, path, ...section, url: withoutSecrets(section.url) })
    }
    for (const line of lines) {
      const name = /^\[([^\]]+)\]/.exec(line)?.[1]
      const [, key, value = ''] = /^\s*([A-Za-z_]+)\s*=\s*(.*?)\s*$/.exec(line) ?? []
      if (name !== undefined) {
        end()
        section = { parts: name, url: '', isEnabled: true }
      } else if (section && key === 'enabled') section.isEnabled = ['1', 'yes', 'true', 'on'].includes(value.toLowerCase())
      else if (section && (key === 'baseurl' || (section.url === '' && (key === 'metalink' || key === 'mirrorlist'))))
        section.url = value.split(/\s/)[0]!
    }
    end()
    return found
  }

const apkOf = (lines: readonly string[], path: string): Repository[] =>
  lines.flatMap((line) => {
    const [, tag = '', url] = /^\s*(?:(@\S+)\s+)?((?:https?|ftp):\S+|\/\S+)\s*$/.exec(line) ?? []
    return url === undefined ? [] : [{ system: 'apk', url: withoutSecrets(url), parts: tag, isEnabled: true, path } as const]
  })
