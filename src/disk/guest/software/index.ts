import { ServiceError } from '../../../base/errors.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { type OperatingSystem, readOperatingSystem } from '../system/operating-system.ts'
import { apk } from './apk.ts'
import { dpkg } from './dpkg.ts'
import { Notes } from './notes.ts'
import type { Package, PackageReader } from './package.ts'
import { pacman } from './pacman.ts'
import { rpm } from './rpm/rpm.ts'

/** Every packaging system of distributions. */
export const packageReaders: readonly PackageReader[] = [dpkg, rpm, apk, pacman]

/** Which of them a distribution has, by `ID` or `ID_LIKE` of os-release. */
const readerOf: Readonly<Record<string, PackageReader>> = {
  ...named(dpkg, ['debian', 'ubuntu', 'raspbian', 'kali', 'linuxmint', 'devuan', 'pop', 'elementary', 'deepin']),
  ...named(rpm, ['fedora', 'rhel', 'centos', 'rocky', 'almalinux', 'ol', 'amzn', 'mariner', 'azurelinux', 'openeuler', 'mageia']),
  ...named(rpm, ['suse', 'opensuse', 'opensuse-leap', 'opensuse-tumbleweed', 'sles', 'sle-micro', 'photon', 'eurolinux']),
  ...named(apk, ['alpine', 'postmarketos', 'wolfi', 'chainguard']),
  ...named(pacman, ['arch', 'archarm', 'manjaro', 'endeavouros', 'cachyos', 'steamos']),
}

function named(reader: PackageReader, distros: readonly string[]): Record<string, PackageReader> {
  return Object.fromEntries(distros.map((distro) => [distro, reader]))
}

/** What is installed on a system, by its packaging systems. */
export interface Software {
  /** In the order of the readers, and in each its own. */
  readonly packages: readonly Package[]
  /** What could not be read, a sentence each: packages may be missing. */
  readonly notes: readonly string[]
  /** Why the list is not what is installed: a database that cannot be read, or a known distribution without one package. None: it is. */
  readonly failures: readonly ServiceError[]
  /** Null where it cannot be read. */
  readonly operatingSystem: OperatingSystem | null
}

/**
 * Reads every packaging system that is in use. One that fails does not hide the others.
 * @param system its tree is read, and nothing of it is run
 */
export async function readSoftware({ tree }: { readonly tree: FileTree }): Promise<Software> {
  const packages: Package[] = []
  const notes = new Notes()
  const failures: ServiceError[] = []
  const attempt = async <Result>(what: string, work: () => Promise<Result>): Promise<Result | undefined> => {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      failures.push(new ServiceError(error.code, `${what} cannot be read: ${error.message}`, error.details, { cause: error }))
      return undefined
    }
  }
  const counts = new Map<PackageReader, number>()
  for (const reader of packageReaders) {
    const found = await attempt(`what ${reader.name} has installed`, () => reader.read(tree))
    if (!found) continue
    counts.set(reader, found.packages.length)
    for (const each of found.packages) packages.push(each)
    for (const note of found.notes) notes.add(note)
  }
  const operatingSystem = (await attempt('which operating system it is', () => readOperatingSystem(tree))) ?? null
  const known = operatingSystem && expected(operatingSystem)
  if (known && failures.length === 0 && !counts.get(known.reader)) failures.push(nothingInstalled(known.reader, known.as))
  return { packages, notes: notes.list, failures, operatingSystem }
}

function expected({ distro, like }: OperatingSystem): { reader: PackageReader; as: string } | undefined {
  for (const as of [distro, ...like]) {
    const reader = Object.hasOwn(readerOf, as) ? readerOf[as] : undefined
    if (reader) return { reader, as }
  }
  return undefined
}

const nothingInstalled = ({ name }: PackageReader, distro: string): ServiceError =>
  new ServiceError(
    'invalid-image',
    `it is ${distro}, and ${name} has no package there: its database was removed or cannot be found`,
    {
      reason: 'no-packages',
      distro,
    },
  )
