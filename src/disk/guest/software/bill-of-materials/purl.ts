import type { OperatingSystem } from '../../system/operating-system.ts'
import type { Package } from '../package.ts'

/** What of a system its packages are named after. */
export type Distribution = Pick<OperatingSystem, 'distro' | 'version'>

/** Kinds that belong to a distribution: its name is theirs. */
const ofDistributions: readonly string[] = ['deb', 'rpm', 'apk', 'alpm']

/**
 * The package URL: `pkg:rpm/fedora/bash@5.2-1.fc40?arch=x86_64&distro=fedora-40&epoch=1`. What it was built from is the qualifier
 * `upstream`, as scanners write it. Source: the purl specification, and "Known types".
 */
export function purlOf(each: Package, distribution: Distribution | null): string {
  const { kind, architecture, source } = each
  const qualifiers: [string, string][] = []
  if (architecture !== null && architecture !== '') qualifiers.push(['arch', architecture])
  const isDistributed = ofDistributions.includes(kind)
  if (isDistributed && distribution)
    qualifiers.push(['distro', [distribution.distro, distribution.version].filter(Boolean).join('-')])
  const [, epoch, plain = each.version] = (kind === 'rpm' && /^(\d+):(.*)$/s.exec(each.version)) || []
  if (epoch !== undefined) qualifiers.push(['epoch', epoch])
  if (source) qualifiers.push(['upstream', source.version === plain ? source.name : `${source.name}@${source.version}`])
  const parts = isDistributed ? [distribution?.distro ?? '', each.name] : namesOf(each)
  const path = parts.filter(Boolean).map(encoded).join('/')
  const query = qualifiers.map(([name, value]) => `${name}=${encoded(value)}`).join('&')
  return `pkg:${kind}/${path}@${encoded(plain)}${query === '' ? '' : `?${query}`}`
}

/** Namespace and name, as the type writes them. */
function namesOf({ kind, name }: Package): readonly string[] {
  if (kind === 'pypi') return [name.toLowerCase().replaceAll('_', '-')]
  if (kind === 'maven') return name.split(':')
  if (kind === 'golang') return name.toLowerCase().split('/')
  return name.split('/')
}

/** Percent-encoded, but for what the specification leaves as it is. */
const encoded = (text: string): string =>
  encodeURIComponent(text.toWellFormed())
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%3A', ':')
