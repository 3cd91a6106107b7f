import { isServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { linesOf } from '../software/lines.ts'

/** The drivers of a kernel. */
export interface KernelModules {
  readonly version: string
  /** By name, `virtio_blk`. Empty, with `isKnown` false, where its lists cannot be read. */
  readonly builtIn: ReadonlySet<string>
  readonly modules: ReadonlySet<string>
  readonly isKnown: boolean
  readonly notes: readonly string[]
}

const folders: readonly string[] = ['/lib/modules', '/usr/lib/modules']
const MAX_BYTES = 16 * MiB
const MAX_NAMES = 50_000

/** `kernel/drivers/block/virtio_blk.ko.xz` → `virtio_blk`: modprobe takes `-` and `_` for the same. */
export const moduleName = (path: string): string =>
  path
    .slice(path.lastIndexOf('/') + 1)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_')

/** By modules.builtin and modules.dep: modules.builtin(5), modules.dep(5). A list that cannot be read is a note. */
export async function readModules(tree: FileTree, version: string): Promise<KernelModules> {
  const notes: string[] = []
  const names = async (file: string): Promise<Set<string> | undefined> => {
    const found = new Set<string>()
    for (const folder of folders) {
      const path = `${folder}/${version}/${file}`
      try {
        const source = await tree.open(path)
        if (!source) continue
        for await (const line of linesOf(source, { path, maxBytes: MAX_BYTES })) {
          const name = /^[^:\s]{1,512}/.exec(line)?.[0]
          if (name !== undefined && found.size < MAX_NAMES) found.add(moduleName(name))
        }
        return found
      } catch (error) {
        if (!isServiceError(error)) throw error
        notes.push(`${path} could not be read: ${error.message}`)
        return undefined
      }
    }
    notes.push(`${folders[0]}/${version}/${file} is not there`)
    return undefined
  }
  const isPlain = /^[^/\0]{1,128}$/.test(version) && version !== '.' && version !== '..'
  if (!isPlain)
    return {
      version,
      builtIn: new Set(),
      modules: new Set(),
      isKnown: false,
      notes: ['the version of the kernel is no name of a folder'],
    }
  const [builtIn, modules] = [await names('modules.builtin'), await names('modules.dep')]
  return {
    version,
    builtIn: builtIn ?? new Set(),
    modules: modules ?? new Set(),
    isKnown: builtIn !== undefined && modules !== undefined,
    notes,
  }
}

/** Versions that have a folder of modules, in the order of the folder. */
export async function moduleVersions(tree: FileTree): Promise<readonly string[]> {
  const versions: string[] = []
  for (const folder of folders) {
    for await (const { name } of tree.list(folder)) if (versions.length < 100 && !versions.includes(name)) versions.push(name)
  }
  return versions
}
