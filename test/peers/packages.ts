/** Debian packages that tests and benchmarks use, each with what needs it: the one list. The service itself needs none of them. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'

interface DebianPackage {
  readonly name: string
  readonly neededBy: string
}

export const packages: readonly DebianPackage[] = [
  { name: 'qemu-utils', neededBy: 'disk formats against qemu-img, and images for the sessions' },
  { name: 'libqcow-utils', neededBy: 'the same, a second reader: qcow2' },
  { name: 'libvhdi-utils', neededBy: 'the same: VHD and VHDX' },
  { name: 'libvmdk-utils', neededBy: 'the same: VMDK' },
  { name: 'fuse3', neededBy: 'the same: what they mount' },
  { name: 'bzip2', neededBy: 'what is packed, by others' },
  { name: 'xz-utils', neededBy: 'the same' },
  { name: 'zip', neededBy: 'the same' },
  { name: 'zstd', neededBy: 'the same' },
  { name: 'gdisk', neededBy: 'partition tables, by another' },
  { name: 'qemu-system-x86', neededBy: 'machines' },
  { name: 'ovmf', neededBy: 'machines that start by UEFI' },
  { name: 'busybox-static', neededBy: 'the tiny guest' },
  { name: 'syslinux', neededBy: 'the same: its boot loader' },
  { name: 'dosfstools', neededBy: 'the same: its file system' },
  { name: 'mtools', neededBy: 'the same' },
  { name: 'mmdebstrap', neededBy: 'a whole Debian as a guest' },
  { name: 'attr', neededBy: 'file systems: extended attributes, as the kernel gives them' },
  { name: 'acl', neededBy: 'the same: access lists' },
  { name: 'btrfs-progs', neededBy: 'the same: btrfs' },
  { name: 'xfsprogs', neededBy: 'the same: XFS' },
  { name: 'squashfs-tools', neededBy: 'the same: squashfs' },
  { name: 'lvm2', neededBy: 'the same: logical volumes' },
  { name: 'cryptsetup-bin', neededBy: 'what is encrypted, and recognised' },
  { name: 'bcache-tools', neededBy: 'what is recognised' },
  { name: 'fdisk', neededBy: 'a whole Debian as a guest: its partitions' },
  { name: 'openssh-client', neededBy: 'the same: who logs in' },
  { name: 'genisoimage', neededBy: "isoinfo, as a reader of cloud-init's seed" },
  { name: 'xorriso', neededBy: 'file systems: ISO 9660, by another' },
  { name: 'ntfs-3g', neededBy: 'the same: NTFS' },
  { name: 'exfatprogs', neededBy: 'the same: exFAT' },
  { name: 'exfat-fuse', neededBy: 'the same, mounted' },
  { name: 'rpm', neededBy: 'packages on a disk: its databases, and the order of its versions' },
  { name: 'db5.3-util', neededBy: 'the same: databases of its older versions' },
  { name: 'pacman-package-manager', neededBy: 'the same: Arch Linux' },
  { name: 'libnbd-bin', neededBy: 'nbdinfo and nbdcopy against the NBD server' },
  { name: 'nbdkit', neededBy: 'its nbd plugin as a client of the NBD server, and the comparison of speed' },
  { name: 'fio', neededBy: 'verified random writes over NBD' },
  { name: 'openssl', neededBy: 'certificates for NBD over TLS' },
  { name: 'gnutls-bin', neededBy: 'pre-shared keys for NBD over TLS' },
  { name: 'python3-openstackclient', neededBy: 'the session of `openstack image …`' },
  { name: 'python3-glanceclient', neededBy: 'the session of `glance …`' },
  { name: 'python3-openstacksdk', neededBy: 'the walk through openstacksdk' },
  { name: 'tempest', neededBy: 'tempest.api.image' },
  { name: 'glance-tempest-plugin', neededBy: 'the RBAC tests of glance-tempest-plugin' },
  { name: 'keystone', neededBy: 'the differential tests' },
  { name: 'glance-api', neededBy: 'the differential test' },
  { name: 'uwsgi-core', neededBy: 'the differential test: Debian runs both services in it' },
  { name: 'uwsgi-plugin-python3', neededBy: 'the differential test' },
  { name: 'mariadb-server', neededBy: 'the differential test: Glance as it is run in production' },
  { name: 'python3-pymysql', neededBy: 'the same' },
  { name: 'memcached', neededBy: "the same: Glance's token cache" },
  { name: 'python3-memcache', neededBy: 'the same' },
  { name: 'strace', neededBy: 'faults of the disk beneath the running service' },
  { name: 'zsh', neededBy: 'the completion of the command line, read by it' },
  { name: 'fish', neededBy: 'the same' },
  { name: 'curl', neededBy: 'benchmarks: bytes up and down' },
  { name: 'wrk', neededBy: 'requests a second' },
  { name: 'restic', neededBy: 'stored bytes and ingest' },
  { name: 'borgbackup', neededBy: 'stored bytes' },
]

const run = promisify(execFile)

/** Names of those that are not installed; all where this is not a Debian. */
export async function missingPackages(): Promise<readonly string[]> {
  const wanted = packages.map((each) => each.name)
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own placeholders
  const query = ['-W', '-f=${Package} ${db:Status-Abbrev}\n', ...wanted]
  const { stdout } = await run('dpkg-query', query).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? '' }))
  const installed = new Set(stdout.split('\n').flatMap((line) => (/ ii\s*$/.test(line) ? [line.split(' ')[0]] : [])))
  return wanted.filter((name) => !installed.has(name))
}

/**
 * Installs what is missing, where this is Debian and we are root. Tests whose tool is still absent afterwards say so in a skip.
 * @returns what is still missing, and why
 */
export async function installPackages(say: (line: string) => void): Promise<readonly string[]> {
  const missing = await missingPackages()
  if (missing.length === 0) return []
  if (!existsSync('/usr/bin/apt-get') || process.getuid?.() !== 0) {
    say(`Not installed, and only root on Debian can: ${missing.join(' ')}. The tests that need them are skipped.`)
    return missing
  }
  say(`apt-get install ${missing.join(' ')}`)
  await keepServicesFromStarting()
  const failed = await aptGet(['update'], 3)
  if (failed) say(`apt-get update: ${failed}`)
  const problem = await aptGet(
    ['install', '-y', '--no-install-recommends', '-o', 'Dpkg::Options::=--force-confold', ...missing],
    2,
  )
  if (problem) say(`apt-get install: ${problem}`)
  return missingPackages()
}

/** Debian starts a service when it installs one; its policy hook says no. One that is there already is left as it is. */
async function keepServicesFromStarting() {
  await writeFile('/usr/sbin/policy-rc.d', '#!/bin/sh\nexit 101\n', { mode: 0o755, flag: 'wx' }).catch(() => {})
}

/** @returns the last lines of what it said where it failed */
async function aptGet(args: readonly string[], attempts: number): Promise<string | null> {
  let output = ''
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const child = spawn('apt-get', ['-q', '-o', 'DPkg::Lock::Timeout=600', '-o', 'Acquire::Retries=3', ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output = (output + text).slice(-4000)))
    const [code] = await once(child, 'close')
    if (code === 0) return null
  }
  return output.trim().split('\n').slice(-5).join(' / ')
}
