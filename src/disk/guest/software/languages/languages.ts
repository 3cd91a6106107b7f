import { ServiceError } from '../../../../base/errors.ts'
import type { FileTree, Found } from '../../filesystems/file-tree.ts'
import { Notes } from '../notes.ts'
import type { Package, PackageList } from '../package.ts'
import { java } from './java.ts'
import type { LanguageReader } from './language-reader.ts'
import { node } from './node.ts'
import { programs } from './programs.ts'
import { python } from './python.ts'
import { ruby } from './ruby.ts'

/** The first that wants a file has it. */
export const languageReaders: readonly LanguageReader[] = [python, node, ruby, java, programs]

/** What is not of the disk, or is gone at the next start. */
const passing: readonly string[] = ['/proc', '/sys', '/dev', '/run']
const MAX_PACKAGES = 500_000
const MAX_LINKED = 100_000

/** Gathers packages of languages from files that somebody walks over; `take` each, in any order. */
export class LanguageCollector {
  readonly notes = new Notes()
  readonly #packages: Package[] = []
  /** Files of more than one name, by file system: each is read once. */
  readonly #linked = new Map<object, Set<number>>()

  /** Reads of the file what is needed; most files are passed over without a read. A damaged one is noted. */
  async take(found: Found): Promise<void> {
    const { path, node: facts, fileSystem } = found
    if (facts.kind !== 'file' || this.#packages.length >= MAX_PACKAGES) return
    const reader = languageReaders.find((each) => each.wants(found))
    if (!reader || this.#isKnown(found)) return
    try {
      const packages = await reader.read(await fileSystem.data(facts), path, this.notes)
      for (const each of packages) this.#packages.push(each)
      if (this.#packages.length >= MAX_PACKAGES)
        this.notes.add(`there are more than ${MAX_PACKAGES} packages of languages; the rest is left out`)
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      this.notes.add(`${path} cannot be read as a package of ${reader.name}: ${error.message}`)
    }
  }

  get result(): PackageList {
    return { packages: [...this.#packages], notes: this.notes.list }
  }

  #isKnown({ node: { id, links }, fileSystem }: Found): boolean {
    if (links < 2) return false
    const known = this.#linked.get(fileSystem) ?? new Set()
    this.#linked.set(fileSystem, known)
    if (known.has(id)) return true
    if (known.size < MAX_LINKED) known.add(id)
    return false
  }
}

/**
 * Packages of languages wherever they are on the disk: one walk over all of it. Who walks for other reasons as well gives the files to a
 * LanguageCollector.
 */
export async function languagePackages(
  tree: FileTree,
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<PackageList> {
  const collector = new LanguageCollector()
  const onDamage = (path: string, error: ServiceError) => collector.notes.add(`${path} could not be read: ${error.message}`)
  for await (const found of tree.walk('/', { signal, onDamage, prune: (path) => passing.includes(path) }))
    await collector.take(found)
  return collector.result
}
