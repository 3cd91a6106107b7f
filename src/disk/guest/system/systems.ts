import { ServiceError } from '../../../base/errors.ts'
import type { FileNode, FileSystem } from '../filesystems/file-system.ts'
import { FileTree, type Mount } from '../filesystems/file-tree.ts'
import type { DiskLayout, Volume } from '../volumes/volumes.ts'
import { type FstabEntry, parseFstab } from './fstab.ts'
import { rootedAt } from './rooted-at.ts'

/** An operating system on a disk: its root, and everything that it mounts of the same disk. */
export interface GuestSystem {
  readonly family: 'linux' | 'windows'
  /** The volume that its root is on. */
  readonly volume: Volume
  readonly tree: FileTree
  readonly fstab: readonly FstabEntry[]
  /** What it mounts, with the volume that was found for each; null: none of this disk. */
  readonly mounts: readonly { readonly entry: FstabEntry; readonly volume: Volume | null }[]
  /** What could not be read or found, a sentence each. */
  readonly notes: readonly string[]
}

/** Where distributions keep their root on btrfs, beside the default subvolume: Ubuntu and Arch, Fedora, Debian. */
const rootSubvolumes: readonly string[] = ['@', 'root', '@rootfs']
const MAX_FSTAB_BYTES = 1024 * 1024
/** What is not there for a look: of the machine, or of the network. */
const passing: readonly string[] = [
  'swap',
  'tmpfs',
  'proc',
  'sysfs',
  'devpts',
  'devtmpfs',
  'nfs',
  'nfs4',
  'cifs',
  'none',
  'auto-none',
  'cgroup2',
  'debugfs',
]

/** The operating systems of a disk, in the order of its volumes; none where there is none. */
export async function findSystems(layout: DiskLayout): Promise<readonly GuestSystem[]> {
  const systems: GuestSystem[] = []
  for (const volume of layout.volumes) {
    if (volume.content.kind !== 'files') continue
    const { files } = volume.content
    try {
      const root = await linuxRoot(files)
      if (root) systems.push(await linuxSystem(volume, root, layout.volumes))
      else if (await new FileTree(files).find('/Windows/System32/config/SOFTWARE')) systems.push(windowsSystem(volume, files))
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      systems.push({ ...windowsSystem(volume, files), family: 'linux', notes: [`it could not be read: ${error.message}`] })
    }
  }
  return systems
}

const windowsSystem = (volume: Volume, files: FileSystem): GuestSystem => ({
  family: 'windows',
  volume,
  tree: new FileTree(files),
  fstab: [],
  mounts: [],
  notes: [],
})

/** The file system whose root is that of a Linux; undefined where there is none. */
async function linuxRoot(files: FileSystem): Promise<FileSystem | undefined> {
  for (const root of [files.root, ...(await subvolumes(files))]) {
    const tree = new FileTree(rootedAt(files, root))
    for (const release of ['/etc/os-release', '/usr/lib/os-release'])
      if (await tree.find(release, false)) return rootedAt(files, root)
    const [etc, programs] = [await tree.find('/etc/passwd'), (await tree.find('/usr/bin')) ?? (await tree.find('/bin'))]
    if (etc && programs) return rootedAt(files, root)
  }
  return undefined
}

async function subvolumes(files: FileSystem): Promise<FileNode[]> {
  if (files.type !== 'btrfs') return []
  const tree = new FileTree(files)
  const found = await Promise.all(rootSubvolumes.map((name) => tree.find(`/${name}`, false)))
  return found.flatMap((each) => (each?.node.kind === 'directory' ? [each.node] : []))
}

async function linuxSystem(volume: Volume, root: FileSystem, volumes: readonly Volume[]): Promise<GuestSystem> {
  const notes: string[] = []
  const text = await readFstab(new FileTree(root), notes)
  const fstab = parseFstab(text)
  const wanted = fstab.filter(({ path, type }) => path.startsWith('/') && path !== '/' && !passing.includes(type))
  const mounts: { entry: FstabEntry; volume: Volume | null }[] = []
  const shown: Mount[] = []
  for (const entry of wanted) {
    const found = volumeNamed(entry.source, volumes)
    mounts.push({ entry, volume: found ?? null })
    if (found?.content.kind === 'files')
      shown.push({ path: cleanPath(entry.path), fileSystem: await mountedRoot(found.content.files, entry, notes) })
    else if (found?.content.kind === 'damaged') notes.push(`${entry.path} could not be read: ${found.content.error.message}`)
    else if (!found && !entry.options.includes('nofail'))
      notes.push(`${entry.path} is on ${entry.source}, which is not on this disk`)
  }
  return { family: 'linux', volume, tree: new FileTree(root, shown), fstab, mounts, notes }
}

async function readFstab(tree: FileTree, notes: string[]): Promise<string> {
  try {
    return Buffer.from((await tree.read('/etc/fstab', MAX_FSTAB_BYTES)) ?? []).toString('utf8')
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
    notes.push(`/etc/fstab could not be read: ${error.message}`)
    return ''
  }
}

/** With `subvol=` or `subvolid=` that subvolume, which is named from the top of its file system, whatever is the default. */
async function mountedRoot(files: FileSystem, { options, path }: FstabEntry, notes: string[]): Promise<FileSystem> {
  const option = (name: string) => options.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1)
  const place = option('subvol') ?? option('subvolid')
  if (place === undefined || !files.subvolume) return files
  const found = await files.subvolume(option('subvol') ?? Number(place))
  if (!found) notes.push(`${path} is subvolume ${place}, which is not there`)
  return found ?? files
}

const cleanPath = (path: string): string => `/${path.split('/').filter(Boolean).join('/')}`

/** The volume that a source of fstab names: fstab(5), first field. */
export function volumeNamed(source: string, volumes: readonly Volume[]): Volume | undefined {
  const [tag = '', value = ''] = source.split(/=(.*)/s)
  const same = (a: string) => a.toLowerCase() === value.toLowerCase()
  const byContent = (key: 'uuid' | 'label') =>
    volumes.find(({ content }) => {
      if (content.kind === 'files') return key === 'uuid' ? same(content.files.uuid) : content.files.label === value
      return content.kind === 'other' && (key === 'uuid' ? same(content.uuid) : content.label === value)
    })
  if (tag === 'UUID') return byContent('uuid')
  if (tag === 'LABEL') return byContent('label')
  if (tag === 'PARTUUID') return volumes.find(({ partition }) => partition !== null && same(partition.id))
  if (tag === 'PARTLABEL') return volumes.find(({ partition }) => partition?.name === value)
  const byLink = /^\/dev\/disk\/by-(uuid|label|partuuid|partlabel)\/(.+)$/.exec(source)
  if (byLink) return volumeNamed(`${byLink[1]!.toUpperCase()}=${byLink[2]}`, volumes)
  const numbered = /^\/dev\/(?:(?:x?v|s|h)d[a-z]|(?:nvme\d+n\d+|mmcblk\d+)p)(\d+)$/.exec(source)
  if (numbered) return volumes.find(({ partition }) => partition?.number === Number(numbered[1]))
  const mapped = /^\/dev\/(?:mapper\/)?(.+)$/.exec(source)?.[1]
  return mapped === undefined
    ? undefined
    : volumes.find(({ name }) => name === mapped || name.replaceAll('-', '--').replace('/', '-') === mapped)
}
