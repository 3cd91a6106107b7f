/**
 * Images that vendors publish for clouds, by the names that people call them. All are for x86_64, start by BIOS, speak on the first
 * serial port, and are set up by cloud-init. Each has a file of checksums, which is fetched from the same vendor over HTTPS.
 */
export interface VendorImage {
  /** Glance's `os_distro` and `os_version`. */
  readonly distro: string
  readonly version: string
  /** For people: `Debian 13`. */
  readonly title: string
  /** Of the latest build; with a slash at the end. */
  readonly folder: string
  /** The file in it. A pattern stands for the last one, in the order of versions, that the folder lists. */
  readonly file: string | RegExp
  /** The file of checksums in it, likewise, or made of the file's name. */
  readonly sums: string | RegExp | ((file: string) => string)
  readonly algorithm: 'sha256' | 'sha512'
  /** Whom the key lets in. */
  readonly user: string
  /** Whether QEMU's guest agent is in it. */
  readonly hasAgent: boolean
}

const debian = (version: string, codename: string): VendorImage => ({
  distro: 'debian',
  version,
  title: `Debian ${version}`,
  folder: `https://cloud.debian.org/images/cloud/${codename}/latest/`,
  file: `debian-${version}-genericcloud-amd64.qcow2`,
  sums: 'SHA512SUMS',
  algorithm: 'sha512',
  user: 'debian',
  hasAgent: false,
})
const ubuntu = (version: string): VendorImage => ({
  distro: 'ubuntu',
  version,
  title: `Ubuntu ${version} LTS`,
  folder: `https://cloud-images.ubuntu.com/releases/${version}/release/`,
  file: `ubuntu-${version}-server-cloudimg-amd64.img`,
  sums: 'SHA256SUMS',
  algorithm: 'sha256',
  user: 'ubuntu',
  hasAgent: false,
})

/** Of each distribution the newest first. */
export const vendorImages: readonly VendorImage[] = [
  debian('13', 'trixie'),
  debian('12', 'bookworm'),
  ubuntu('24.04'),
  ubuntu('22.04'),
  {
    distro: 'alpine',
    version: 'latest',
    title: 'Alpine Linux',
    folder: 'https://dl-cdn.alpinelinux.org/alpine/latest-stable/releases/cloud/',
    file: /^nocloud_alpine-[\d.]+-x86_64-bios-cloudinit-r\d+\.qcow2$/,
    sums: (file) => `${file}.sha512`,
    algorithm: 'sha512',
    user: 'alpine',
    hasAgent: false,
  },
  {
    distro: 'fedora',
    version: '44',
    title: 'Fedora Cloud 44',
    folder: 'https://dl.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/x86_64/images/',
    file: /^Fedora-Cloud-Base-Generic-44-[\d.]+\.x86_64\.qcow2$/,
    sums: /^Fedora-Cloud-44-[\d.]+-x86_64-CHECKSUM$/,
    algorithm: 'sha256',
    user: 'fedora',
    hasAgent: true,
  },
]

/** `debian`, `debian-12`, `debian:12` and `Debian 12` name an image of a distribution; a name without a version its newest. */
export function distroOf(name: string): { readonly distro: string; readonly version: string | null } | null {
  const found = /^([a-z]+)(?:[-: ]?(\d[\d.]*))?$/.exec(name.toLowerCase())
  return found?.[1] === undefined ? null : { distro: found[1], version: found[2] ?? null }
}

export function vendorImageFor(name: string): VendorImage | undefined {
  const wanted = distroOf(name)
  return vendorImages.find(
    ({ distro, version }) => distro === wanted?.distro && (wanted.version === null || wanted.version === version),
  )
}
