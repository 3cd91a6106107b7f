import { isServiceError, ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { DirectoryEntry, FileNode, FileSystem } from './file-system.ts'

/** A node and where it is. */
export interface Found {
  /** Absolute, with no symbolic link in it, `.` or `..`; `/` for the root. */
  readonly path: string
  readonly node: FileNode
  readonly fileSystem: FileSystem
}

/** A file system that is shown at a directory of the tree. */
export interface Mount {
  /** Absolute: `/boot/efi`. */
  readonly path: string
  readonly fileSystem: FileSystem
}

export interface WalkOptions {
  readonly signal?: AbortSignal | undefined
  /** Directories whose contents are left out, by their paths. */
  readonly prune?: (path: string) => boolean
  /** Told of a directory that cannot be read, and of an entry that leads to no node; without it the walk throws. */
  readonly onDamage?: (path: string, error: ServiceError) => void
  /** Of nodes; beyond it the walk throws `too-large`. */
  readonly maxNodes?: number
}

const MAX_LINKS = 40 // Linux: MAXSYMLINKS; a link to itself ends here
const MAX_PATH_BYTES = 4096 // Linux: PATH_MAX
const MAX_DEPTH = 512
const DEFAULT_MAX_NODES = 10_000_000

/**
 * The files that a guest sees: its root, and what it mounts. Paths are the guest's: an absolute link begins at its root, and `..` of
 * the root is the root, so that no path leads out.
 */
export class FileTree {
  readonly root: FileSystem
  readonly #mounts: ReadonlyMap<string, FileSystem>

  /** @param mounts their directories need not be there; `/` is not among them */
  constructor(root: FileSystem, mounts: readonly Mount[] = []) {
    this.root = root
    this.#mounts = new Map(mounts.map(({ path, fileSystem }) => [path, fileSystem]))
  }

  /**
   * What a path names.
   * @param followsLast  whether a symbolic link at its end is followed
   * @returns undefined where there is nothing, or a link leads nowhere
   * @throws ServiceError `invalid-image` for more than 40 links, and where a directory is damaged
   */
  async find(path: string, followsLast = true): Promise<Found | undefined> {
    let at: Found[] = [this.#top()]
    const left = namesOf(path).reverse()
    for (let links = 0; left.length > 0; ) {
      const name = left.pop()!
      if (name === '..') {
        if (at.length > 1) at.pop()
        continue
      }
      const here = at.at(-1)!
      if (here.node.kind !== 'directory') return undefined
      const there = await this.#child(here, name)
      if (!there) return undefined
      if (there.node.kind !== 'symlink' || (left.length === 0 && !followsLast)) {
        at.push(there)
        continue
      }
      links += 1
      if (links > MAX_LINKS) throw refuse(`more than ${MAX_LINKS} symbolic links on the way to ${path}`)
      const target = await here.fileSystem.readLink(there.node)
      if (target.length > MAX_PATH_BYTES) throw refuse(`a symbolic link of ${target.length} characters`)
      if (target.startsWith('/')) at = [this.#top()]
      left.push(...namesOf(target).reverse())
      if (left.length > MAX_PATH_BYTES) throw refuse(`symbolic links that make a path of ${left.length} names`)
    }
    return at.at(-1)
  }

  /**
   * The bytes of a regular file, links followed; undefined where there is none.
   * @throws ServiceError `too-large` where it has more than `maxBytes`
   */
  async read(path: string, maxBytes: number): Promise<Uint8Array | undefined> {
    const source = await this.open(path)
    if (!source) return undefined
    if (source.size > maxBytes) {
      throw new ServiceError('too-large', `${path} has ${source.size} bytes, which is more than ${maxBytes}`, { maxBytes })
    }
    return source.read(0, source.size)
  }

  /** A regular file, links followed; undefined where there is none. */
  async open(path: string): Promise<BlockSource | undefined> {
    const found = await this.find(path)
    return found?.node.kind === 'file' ? found.fileSystem.data(found.node) : undefined
  }

  /** The names in a directory, links followed, as they come; none where there is no such directory. */
  async *list(path: string): AsyncGenerator<DirectoryEntry> {
    const found = await this.find(path)
    if (found?.node.kind === 'directory') yield* found.fileSystem.list(found.node)
  }

  /** Everything at and below a path, a directory before what is in it, names in the order of their characters; links are not followed. A directory that is met twice is damage. */
  async *walk(path: string, options: WalkOptions = {}): AsyncGenerator<Found> {
    const { signal, prune = () => false, onDamage, maxNodes = DEFAULT_MAX_NODES } = options
    const start = await this.find(path, false)
    if (!start) return
    const waiting: { readonly found: Found; readonly depth: number }[] = [{ found: start, depth: 0 }]
    const seen = new Map<FileSystem, Set<number>>()
    let nodes = 0
    const tooMany = () => new ServiceError('too-large', `there are more than ${maxNodes} files`, { maxNodes })
    const damaged = (path: string, error: unknown): void => {
      if (!isServiceError(error) || error.code === 'too-large' || !onDamage) throw error
      onDamage(path, error)
    }
    while (waiting.length > 0) {
      signal?.throwIfAborted()
      const { found, depth } = waiting.pop()!
      nodes += 1
      if (nodes > maxNodes) throw tooMany()
      yield found
      if (found.node.kind !== 'directory' || prune(found.path)) continue
      const children: Found[] = []
      try {
        const known = seen.get(found.fileSystem) ?? new Set()
        seen.set(found.fileSystem, known)
        if (known.has(found.node.id)) throw refuse(`the directory ${found.path} is there by another name`)
        known.add(found.node.id)
        if (depth >= MAX_DEPTH) throw refuse(`directories more than ${MAX_DEPTH} deep`)
        for await (const entry of found.fileSystem.list(found.node)) {
          const child = await this.#entered(found, entry).catch((error: unknown) => damaged(pathOf(found, entry), error))
          if (child) children.push(child)
          else nodes += 1
          if (nodes + waiting.length + children.length > maxNodes) throw tooMany()
        }
      } catch (error) {
        damaged(found.path, error)
      }
      children.sort((a, b) => (a.path < b.path ? 1 : -1))
      for (const child of children) waiting.push({ found: child, depth: depth + 1 })
    }
  }

  #top(): Found {
    return { path: '/', node: this.root.root, fileSystem: this.root }
  }

  async #child(here: Found, name: string): Promise<Found | undefined> {
    const entry = await here.fileSystem.find(here.node, name)
    return entry && this.#entered(here, entry)
  }

  /** What an entry leads to: what is mounted there, where something is. */
  async #entered(here: Found, entry: DirectoryEntry): Promise<Found> {
    const path = pathOf(here, entry)
    const mounted = this.#mounts.get(path)
    if (mounted) return { path, node: mounted.root, fileSystem: mounted }
    return { path, node: await here.fileSystem.node(entry.id), fileSystem: here.fileSystem }
  }
}

const pathOf = (here: Found, { name }: DirectoryEntry): string => (here.path === '/' ? `/${name}` : `${here.path}/${name}`)

const namesOf = (path: string): string[] => path.split('/').filter((name) => name !== '' && name !== '.')

const refuse = (problem: string): ServiceError =>
  new ServiceError('invalid-image', `the file system has ${problem}`, { reason: 'malformed' })
