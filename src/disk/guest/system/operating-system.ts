import type { FileTree } from '../filesystems/file-tree.ts'
import { ELF_HEAD_BYTES, elfArchitecture } from './elf.ts'
import { MAX_OS_RELEASE_BYTES, parseOsRelease } from './os-release.ts'

/** What a Linux says it is. Strings are the guest's: to be shown inert. */
export interface OperatingSystem {
  /** `ID` of os-release, as `debian`; by other evidence where it has none; `linux` where nothing says. */
  readonly distro: string
  /** Distributions that it is like, `ID_LIKE`. */
  readonly like: readonly string[]
  /** `VERSION_ID`, as `12` or `22.04`; empty: none, as of rolling ones. */
  readonly version: string
  /** With the point release where a file has it: `12.5`. */
  readonly fullVersion: string
  readonly codename: string
  /** For people: `PRETTY_NAME`. */
  readonly name: string
  /** In the words of Glance's `architecture`; null where no program says. */
  readonly architecture: string | null
  readonly hostname: string | null
  /** The first program: `systemd`, `busybox`, `sysvinit`, `openrc`; null where it is not known. */
  readonly init: string | null
  /** Where that is from, by path. */
  readonly evidence: readonly string[]
}

const releaseFiles: readonly string[] = ['/etc/os-release', '/usr/lib/os-release']
/** Older files, by the distribution that has them: one line each. */
const oldFiles: readonly (readonly [path: string, distro: string])[] = [
  ['/etc/debian_version', 'debian'],
  ['/etc/alpine-release', 'alpine'],
  ['/etc/centos-release', 'centos'],
  ['/etc/fedora-release', 'fedora'],
  ['/etc/redhat-release', 'rhel'],
  ['/etc/SuSE-release', 'suse'],
  ['/etc/arch-release', 'arch'],
  ['/etc/gentoo-release', 'gentoo'],
  ['/etc/slackware-version', 'slackware'],
]
/** Which of them has a version that is more precise than VERSION_ID. */
const pointFiles: Readonly<Record<string, string>> = {
  debian: '/etc/debian_version',
  alpine: '/etc/alpine-release',
  centos: '/etc/centos-release',
}
/** Programs that every kind of Linux has one of. */
const programs: readonly string[] = ['/usr/bin/env', '/bin/sh', '/bin/busybox', '/usr/lib/systemd/systemd', '/sbin/init']
const MAX_LINE_BYTES = 4096

/** @throws ServiceError `invalid-image` where what must be read is damaged */
export async function readOperatingSystem(tree: FileTree): Promise<OperatingSystem> {
  const evidence: string[] = []
  let release: ReadonlyMap<string, string> = new Map()
  for (const path of releaseFiles) {
    const bytes = await head(tree, path, MAX_OS_RELEASE_BYTES)
    if (!bytes) continue
    release = parseOsRelease(bytes.toString('utf8'))
    evidence.push(path)
    break
  }
  const old = release.has('ID') ? undefined : await oldRelease(tree)
  if (old) evidence.push(old.path)
  const distro = release.get('ID')?.toLowerCase() ?? old?.distro ?? 'linux'
  const version = release.get('VERSION_ID') ?? old?.version ?? ''
  const point = Object.hasOwn(pointFiles, distro) ? pointFiles[distro] : undefined // the guest's word may be `constructor`
  const fullVersion = (point && numberIn(await firstLine(tree, point))) || version
  return {
    distro,
    like: release.get('ID_LIKE')?.toLowerCase().split(/\s+/).filter(Boolean) ?? [],
    version,
    fullVersion,
    codename: release.get('VERSION_CODENAME') ?? '',
    name: release.get('PRETTY_NAME') ?? release.get('NAME') ?? old?.line ?? distro,
    architecture: await architectureOf(tree),
    hostname: (await firstLine(tree, '/etc/hostname')) || null,
    init: await initOf(tree),
    evidence,
  }
}

async function oldRelease(tree: FileTree): Promise<{ path: string; distro: string; version: string; line: string } | undefined> {
  for (const [path, distro] of oldFiles) {
    const line = await firstLine(tree, path)
    if (line !== undefined) return { path, distro, version: numberIn(line) ?? '', line }
  }
  return undefined
}

const numberIn = (line: string | undefined): string | undefined => /\d+(?:\.\d+)*/.exec(line ?? '')?.[0]

async function firstLine(tree: FileTree, path: string): Promise<string | undefined> {
  return (await head(tree, path, MAX_LINE_BYTES))?.toString('utf8').split('\n')[0]?.trim()
}

/** The beginning of a regular file; undefined where there is none. */
async function head(tree: FileTree, path: string, bytes: number): Promise<Buffer | undefined> {
  const source = await tree.open(path)
  return source && Buffer.from(await source.read(0, Math.min(bytes, source.size)))
}

async function architectureOf(tree: FileTree): Promise<string | null> {
  for (const path of programs) {
    const bytes = await head(tree, path, ELF_HEAD_BYTES)
    const architecture = bytes && elfArchitecture(bytes)
    if (architecture) return architecture
  }
  return null
}

async function initOf(tree: FileTree): Promise<string | null> {
  const first = (await tree.find('/sbin/init')) ?? (await tree.find('/usr/sbin/init'))
  if (!first) return null
  const name = first.path.split('/').at(-1)!
  if (name === 'systemd' || name === 'busybox') return name
  if (name.includes('openrc')) return 'openrc'
  return name === 'init' ? 'sysvinit' : null
}
