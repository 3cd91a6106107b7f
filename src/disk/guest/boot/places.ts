import { isServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { FileTree } from '../filesystems/file-tree.ts'
import { type GuestSystem, volumeNamed } from '../system/systems.ts'
import type { DiskLayout, Volume } from '../volumes/volumes.ts'

/** A file of a volume, by the name that it has there. */
export interface Place {
  readonly volume: Volume
  readonly tree: FileTree
  /** From the root of the volume's files. */
  readonly path: string
}

const MAX_TEXT = 1024 * 1024

export const treeOf = (volume: Volume): FileTree | undefined =>
  volume.content.kind === 'files' ? new FileTree(volume.content.files) : undefined

/** `partition 2:/boot/vmlinuz`, for people. */
export const placeText = ({ volume, path }: Pick<Place, 'volume' | 'path'>): string => `${volume.name}:${path}`

/** The text of a small file; undefined where there is none, or it cannot be read, which is a note. */
export async function readText(tree: FileTree, path: string, notes: { add(note: string): void }): Promise<string | undefined> {
  try {
    const bytes = await tree.read(path, MAX_TEXT)
    return bytes && Buffer.from(bytes).toString('utf8')
  } catch (error) {
    if (!isServiceError(error)) throw error
    notes.add(`${path} could not be read: ${error.message}`)
    return undefined
  }
}

/** What a loader's path leads to: `(hd0,gpt2)/vmlinuz`, `(UUID=…)/vmlinuz`, or from `root`, or where the configuration is. */
export class Places {
  readonly #layout: DiskLayout
  readonly #system: GuestSystem | undefined

  constructor(layout: DiskLayout, system: GuestSystem | undefined) {
    this.#layout = layout
    this.#system = system
  }

  /** Undefined where `root` names no volume of the disk. */
  volume(root: string | null, home: Volume): Volume | undefined {
    if (root === null) return home
    const numbered = /^(?:hd0,)?(?:gpt|msdos)?(\d{1,3})$/.exec(root)
    if (numbered) return this.#layout.volumes.find(({ partition }) => partition?.number === Number(numbered[1]))
    return volumeNamed(root, this.#layout.volumes)
  }

  async find(written: string, root: string | null, home: Volume): Promise<(Place & { readonly file: BlockSource }) | undefined> {
    const [, device, rest] = /^\(([^)]*)\)(.*)$/s.exec(written) ?? [undefined, undefined, written]
    const volume = this.volume(device ?? root, home)
    const path = `/${rest!.replaceAll('\\', '/').replace(/^\/+/, '')}`
    if (!volume) return undefined
    // a path of GRUB on btrfs begins with the subvolume, or in the default one
    for (const tree of [treeOf(volume), this.#system?.volume === volume ? this.#system.tree : undefined]) {
      const file = await tree?.open(path)
      if (tree && file) return { volume, tree, path, file }
    }
    return undefined
  }
}
