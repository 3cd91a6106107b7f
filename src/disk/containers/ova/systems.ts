import type { OvfMachine } from './descriptor.ts'

/** `os_distro` is a short id of libosinfo. */
type System = { readonly os_type?: string; readonly os_distro?: string; readonly os_version?: string }

/**
 * Values of OSType of CIM_OperatingSystem, as `ovf:id` has them. Versions where the value says one. Source: CIM schema 2.22 and later;
 * VMware and VirtualBox write the generic values for what is newer than it, so that their own words go first.
 */
const byId: Readonly<Record<number, System>> = {
  36: { os_type: 'linux' },
  42: { os_distro: 'freebsd' },
  78: { os_distro: 'freebsd' },
  65: { os_distro: 'openbsd' },
  66: { os_distro: 'netbsd' },
  69: { os_type: 'windows', os_distro: 'windows', os_version: '2003' },
  70: { os_type: 'windows', os_distro: 'windows', os_version: '2003' },
  73: { os_type: 'windows', os_distro: 'windows', os_version: 'vista' },
  74: { os_type: 'windows', os_distro: 'windows', os_version: 'vista' },
  76: { os_type: 'windows', os_distro: 'windows', os_version: '2008' },
  77: { os_type: 'windows', os_distro: 'windows', os_version: '2008' },
  79: { os_type: 'linux', os_distro: 'rhel' },
  80: { os_type: 'linux', os_distro: 'rhel' },
  82: { os_type: 'linux', os_distro: 'sles' },
  83: { os_type: 'linux', os_distro: 'sles' },
  93: { os_type: 'linux', os_distro: 'ubuntu' },
  94: { os_type: 'linux', os_distro: 'ubuntu' },
  95: { os_type: 'linux', os_distro: 'debian' },
  96: { os_type: 'linux', os_distro: 'debian' },
  97: { os_type: 'linux' },
  98: { os_type: 'linux' },
  99: { os_type: 'linux' },
  100: { os_type: 'linux' },
  101: { os_type: 'linux' },
  103: { os_type: 'windows', os_distro: 'windows', os_version: '2008r2' },
  105: { os_type: 'windows', os_distro: 'windows', os_version: '7' },
  106: { os_type: 'linux', os_distro: 'centos' },
  107: { os_type: 'linux', os_distro: 'centos' },
  108: { os_type: 'linux', os_distro: 'ol' },
  109: { os_type: 'linux', os_distro: 'ol' },
  113: { os_type: 'windows', os_distro: 'windows', os_version: '2012' },
  115: { os_type: 'windows', os_distro: 'windows', os_version: '2012r2' },
}

/** How the words of VMware (`debian12_64Guest`) and VirtualBox (`Debian12_64`) begin, in lower case; the first that fits counts. */
const byWord: readonly (readonly [start: string, system: System])[] = [
  ['almalinux', { os_type: 'linux', os_distro: 'almalinux' }],
  ['alpine', { os_type: 'linux', os_distro: 'alpinelinux' }],
  ['arch', { os_type: 'linux', os_distro: 'arch' }],
  ['centos', { os_type: 'linux', os_distro: 'centos' }],
  ['debian', { os_type: 'linux', os_distro: 'debian' }],
  ['fedora', { os_type: 'linux', os_distro: 'fedora' }],
  ['freebsd', { os_distro: 'freebsd' }],
  ['gentoo', { os_type: 'linux', os_distro: 'gentoo' }],
  ['netbsd', { os_distro: 'netbsd' }],
  ['openbsd', { os_distro: 'openbsd' }],
  ['opensuse', { os_type: 'linux', os_distro: 'opensuse' }],
  ['oracle', { os_type: 'linux', os_distro: 'ol' }],
  ['rhel', { os_type: 'linux', os_distro: 'rhel' }],
  ['redhat', { os_type: 'linux', os_distro: 'rhel' }],
  ['rocky', { os_type: 'linux', os_distro: 'rocky' }],
  ['sles', { os_type: 'linux', os_distro: 'sles' }],
  ['suse', { os_type: 'linux', os_distro: 'sles' }],
  ['solaris', { os_distro: 'solaris' }],
  ['ubuntu', { os_type: 'linux', os_distro: 'ubuntu' }],
  ['windows', { os_type: 'windows', os_distro: 'windows' }],
  ['win', { os_type: 'windows', os_distro: 'windows' }],
  ['otherlinux', { os_type: 'linux' }],
  ['other2', { os_type: 'linux' }], // other24xLinuxGuest, other26xLinux64Guest
  ['other3', { os_type: 'linux' }],
  ['other4', { os_type: 'linux' }],
  ['other5', { os_type: 'linux' }],
  ['other6', { os_type: 'linux' }],
  ['linux', { os_type: 'linux' }],
]
/** Distributions whose number in such a word is their version; Windows has numbers of its own there. */
const versioned: readonly string[] = ['almalinux', 'centos', 'debian', 'rhel', 'rocky', 'sles', 'freebsd', 'ol']
const VERSION = /^[a-z]+?(?:linux)?(\d{1,2})(?:_|guest|$)/

/** What a package says of its system, in Glance's words: those of its maker first, then the number of the standard. */
export function systemOf({ id, description, vendorType }: OvfMachine['system']): Readonly<Record<string, string>> {
  for (const word of [vendorType, description]) {
    const plain = word.toLowerCase().replace(/[\s"]/g, '')
    const found = byWord.find(([start]) => plain.startsWith(start))?.[1]
    if (!found) continue
    const version = versioned.includes(found.os_distro ?? '') ? VERSION.exec(plain)?.[1] : undefined
    return { ...found, ...(version === undefined ? {} : { os_version: version }) }
  }
  return { ...(byId[id ?? 0] ?? {}) }
}
