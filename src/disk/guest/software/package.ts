import type { FileTree } from '../filesystems/file-tree.ts'

/** Packaging systems, by their type in a package URL. Source: the purl specification, "Known types". */
export type PackageKind = 'deb' | 'rpm' | 'apk' | 'alpm' | 'pypi' | 'npm' | 'gem' | 'golang' | 'maven' | 'cargo'

/** Something that is installed. Strings are the guest's: to be shown inert. */
export interface Package {
  readonly kind: PackageKind
  readonly name: string
  /** As its own tools print it: with epoch and revision. */
  readonly version: string
  /** In its own words: `amd64`, `x86_64`, `noarch`; null where it has none. */
  readonly architecture: string | null
  /** What it was built from, where that has another name or version. */
  readonly source: { readonly name: string; readonly version: string } | null
  /** Of its files, where the database says. */
  readonly installedBytes: number | null
  /** The file that says so. */
  readonly path: string
}

export interface PackageList {
  readonly packages: readonly Package[]
  /** What could not be read, a sentence each: the list may lack packages. */
  readonly notes: readonly string[]
}

/** A reader of one packaging system. */
export interface PackageReader {
  /** `dpkg`, `rpm` …, for people. */
  readonly name: string
  /**
   * Everything that it says is installed, in its own order.
   * @returns undefined where the system is not in use
   * @throws ServiceError `invalid-image` where its database cannot be read at all; `too-large` beyond a limit
   */
  read(tree: FileTree): Promise<PackageList | undefined>
}
