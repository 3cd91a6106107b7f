import { isServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { stack } from '../../block/block-source.ts'
import { window } from '../../filters/window.ts'
import { FileTree } from '../filesystems/file-tree.ts'
import { Notes } from '../software/notes.ts'
import type { GuestSystem } from '../system/systems.ts'
import type { DiskLayout, Volume } from '../volumes/volumes.ts'
import { type BootCode, hasGrubCore, readBootCode } from './boot-code.ts'
import { type EfiLoader, type LoaderKind, readEfiLoaders } from './efi-loaders.ts'
import { readEfiProgram, sectionText } from './efi-program.ts'
import { parseGrubEnvironment, readGrubConfig } from './grub-config.ts'
import { type Initramfs, readInitramfs } from './initramfs.ts'
import { type KernelImage, readKernelImage } from './kernel-image.ts'
import { type LoaderEntryFile, readLoaderEntries, readSystemdBoot } from './loader-entries.ts'
import type { BootMenu, MenuEntry } from './menu.ts'
import { type KernelModules, moduleVersions, readModules } from './modules.ts'
import { Places, placeText, readText, treeOf } from './places.ts'
import { readSyslinuxConfig } from './syslinux-config.ts'

/** How a disk starts. Strings are the guest's: to be shown inert. */
export interface BootFacts {
  readonly bios: {
    /** What the first sector of the disk starts. */
    readonly code: BootCode
    /** Of partitions that have code of their own, by the names of their volumes. */
    readonly partitions: readonly { readonly volume: string; readonly code: BootCode }[]
    /** On a GPT: whether there is a BIOS boot partition, where GRUB's image can lie. */
    readonly hasBootPartition: boolean
    /** Where the code is GRUB's: that what it loads is there. */
    readonly hasGrubCore: boolean
  }
  readonly efi: readonly (EfiLoader & { readonly volume: string })[]
  /** What is started for each firmware by itself; null: nothing that is known. */
  readonly starts: { readonly bios: BootStart | null; readonly uefi: BootStart | null }
  readonly notes: readonly string[]
}

/** What a disk starts when nobody chooses. */
export interface BootStart {
  readonly loader: LoaderKind
  /** `partition 1:/boot/grub/grub.cfg`; null: it has none. */
  readonly config: string | null
  readonly menu: BootMenu | null
  readonly entry: MenuEntry | null
  /** Null where the entry starts none, or it is not there. */
  readonly kernel: (KernelImage & { readonly path: string; readonly modules: KernelModules | null }) | null
  /** Null where it wants none, or it is not there. */
  readonly initramfs: (Initramfs & { readonly path: string }) | null
  /** Files that the entry names and that are not there. */
  readonly missing: readonly string[]
  readonly notes: readonly string[]
}

const ESP_TYPES: readonly string[] = ['c12a7328-f81f-11d2-ba4b-00a0c93ec93b', '0xef']
const XBOOTLDR_TYPE = 'bc13c2ff-59e6-4262-a352-b275fd6f7172'
const BIOS_BOOT_TYPE = '21686148-6449-6e6f-744e-656564454649'
const grubConfigs: readonly string[] = ['/boot/grub/grub.cfg', '/boot/grub2/grub.cfg', '/grub/grub.cfg', '/grub2/grub.cfg']
const syslinuxConfigs: readonly string[] = [
  '/boot/extlinux/extlinux.conf',
  '/extlinux/extlinux.conf',
  '/extlinux.conf',
  '/boot/syslinux/syslinux.cfg',
  '/syslinux/syslinux.cfg',
  '/syslinux.cfg',
  '/isolinux/isolinux.cfg',
  '/boot/isolinux/isolinux.cfg',
]
const MAX_ENTRIES = 200
const MAX_STUBS = 4 // a grub.cfg that leads to another

/** How a disk starts, by what is on it; nothing is run. Reads configurations, the heads of kernels, and the whole of an initramfs. */
export async function readBoot(disk: BlockSource, layout: DiskLayout, system: GuestSystem | undefined): Promise<BootFacts> {
  return new BootReader(disk, layout, system).read()
}

class BootReader {
  readonly #disk: BlockSource
  readonly #layout: DiskLayout
  readonly #system: GuestSystem | undefined
  readonly #places: Places
  readonly #notes = new Notes()
  readonly #initramfs = new Map<string, Initramfs>()

  constructor(disk: BlockSource, layout: DiskLayout, system: GuestSystem | undefined) {
    this.#disk = disk
    this.#layout = layout
    this.#system = system
    this.#places = new Places(layout, system)
  }

  async read(): Promise<BootFacts> {
    const bios = await this.#bios()
    const efi: (EfiLoader & { volume: string; on: Volume })[] = []
    for (const volume of this.#espVolumes()) {
      const tree = treeOf(volume)
      if (!tree) continue
      const loaders = await this.#safely(volume.name, () => readEfiLoaders(tree, this.#notes))
      for (const loader of loaders ?? []) efi.push({ ...loader, volume: volume.name, on: volume })
    }
    const starts = {
      bios: (await this.#safely('what a BIOS starts', () => this.#startBios(bios))) ?? null,
      uefi: (await this.#safely('what UEFI firmware starts', () => this.#startUefi(efi))) ?? null,
    }
    return { bios, efi: efi.map(({ on: _, ...loader }) => loader), starts, notes: this.#notes.list }
  }

  async #safely<Result>(what: string, work: () => Promise<Result>): Promise<Result | undefined> {
    try {
      return await work()
    } catch (error) {
      if (!isServiceError(error)) throw error
      this.#notes.add(`${what} could not be read: ${error.message}`)
      return undefined
    }
  }

  async #bios(): Promise<BootFacts['bios']> {
    const code = await readBootCode(this.#disk)
    const partitions: { volume: string; code: BootCode }[] = []
    for (const { name, offset, bytes, partition } of this.#layout.volumes) {
      if (partition === null || offset === null) continue
      const own = await readBootCode(stack(this.#disk, [window(offset, bytes)]))
      if (own !== 'none' && own !== 'unknown') partitions.push({ volume: name, code: own })
    }
    const hasBootPartition = this.#layout.table?.partitions.some(({ type }) => type === BIOS_BOOT_TYPE) ?? false
    return { code, partitions, hasBootPartition, hasGrubCore: code === 'grub' && (await hasGrubCore(this.#disk)) }
  }

  #espVolumes(): readonly Volume[] {
    const isFat = ({ content }: Volume) => content.kind === 'files' && content.files.type === 'vfat'
    const declared = this.#layout.volumes.filter(({ partition }) => partition !== null && ESP_TYPES.includes(partition.type))
    return declared.length > 0 ? declared : this.#layout.volumes.filter(isFat)
  }

  async #startBios({ code, partitions }: BootFacts['bios']): Promise<BootStart | null> {
    const codes = [code, ...partitions.map((each) => each.code)]
    if (codes.includes('grub')) return this.#grub('bios', this.#homes(), 'grub')
    if (codes.includes('syslinux')) return this.#syslinux()
    const other = codes.find((each) => each === 'windows' || each === 'lilo')
    return other ? bare(other as LoaderKind) : null
  }

  async #startUefi(programs: readonly (EfiLoader & { on: Volume })[]): Promise<BootStart | null> {
    const first = programs.find(({ isFallback }) => isFallback) ?? programs.find(({ kind }) => kind !== 'unknown')
    if (!first) return null
    const beside = programs.filter(({ on, path }) => on === first.on && folderOf(path) === folderOf(first.path))
    const isGrub = first.kind === 'grub' || (first.kind === 'shim' && beside.some(({ kind }) => kind === 'grub'))
    if (isGrub || (first.kind === 'shim' && programs.some(({ kind }) => kind === 'grub'))) {
      const folders = [folderOf(first.path), ...programs.filter(({ kind }) => kind === 'grub').map(({ path }) => folderOf(path))]
      const onEsp = [...new Set(folders)].map((folder) => ({ volume: first.on, path: `${folder}/grub.cfg` }))
      return this.#grub('uefi', [...onEsp, ...(await this.#stubs(first.on)), ...this.#homes()], 'grub')
    }
    if (first.kind === 'systemd-boot') return this.#systemdBoot(first.on)
    if (first.kind === 'unified-kernel')
      return this.#started('unified-kernel', null, null, await unified(first.on, first.path), first.on)
    // a loader that is not known by its content, with a configuration that is
    if (first.kind === 'unknown' || first.kind === 'shim')
      return (await this.#grub('uefi', [...(await this.#stubs(first.on)), ...this.#homes()], first.kind)) ?? bare(first.kind)
    return bare(first.kind)
  }

  /** Every grub.cfg of the ESP: where a distribution's GRUB looks first. */
  async #stubs(esp: Volume): Promise<{ volume: Volume; path: string }[]> {
    const tree = treeOf(esp)
    const found: { volume: Volume; path: string }[] = []
    if (!tree) return found
    for await (const { name } of tree.list('/EFI'))
      if (found.length < 64) found.push({ volume: esp, path: `/EFI/${name}/grub.cfg` })
    return found
  }

  /** Where GRUB's own configuration may be, on each volume. */
  #homes(): { volume: Volume; path: string }[] {
    const volumes = this.#layout.volumes.filter(({ content }) => content.kind === 'files')
    return volumes.flatMap((volume) => grubConfigs.map((path) => ({ volume, path })))
  }

  async #grub(
    firmware: 'bios' | 'uefi',
    homes: readonly { volume: Volume; path: string }[],
    loader: LoaderKind,
  ): Promise<BootStart | null> {
    for (const home of homes) {
      const tried = new Set<string>()
      let at: { volume: Volume; path: string } | undefined = home
      for (let step = 0; at && step < MAX_STUBS && !tried.has(placeText(at)); step += 1) {
        tried.add(placeText(at))
        const found = await this.#places.find(at.path, null, at.volume)
        const text = found && (await readText(found.tree, found.path, this.#notes))
        if (!found || text === undefined) break
        const { next, ...menu } = readGrubConfig(text, {
          firmware,
          environment: await this.#environment(found.tree, folderOf(found.path)),
          loaderEntries: await this.#entries(found.volume, found.tree),
        })
        if (menu.entries.length > 0 || !next) return this.#started(loader, placeText(found), menu, menu.chosen, found.volume)
        const [, device, path] = /^\(([^)]*)\)(.*)$/s.exec(next.path) ?? [undefined, undefined, next.path]
        const volume: Volume | undefined = this.#places.volume(device ?? next.root, found.volume)
        at = volume && { volume, path }
      }
    }
    return null
  }

  async #environment(tree: FileTree, folder: string): Promise<ReadonlyMap<string, string> | undefined> {
    const text = await readText(tree, `${folder}/grubenv`, this.#notes)
    return text === undefined ? undefined : parseGrubEnvironment(text)
  }

  /** Loader entries of a volume: of /boot where that is a part of the root. */
  async #entries(volume: Volume, own: FileTree): Promise<readonly MenuEntry[]> {
    const files: LoaderEntryFile[] = []
    const volumes = [own, ...this.#layout.volumes.filter((each) => each !== volume).flatMap((each) => treeOf(each) ?? [])]
    for (const tree of volumes) {
      for (const folder of ['/loader/entries', '/boot/loader/entries']) {
        for await (const { name } of tree.list(folder)) {
          if (!name.endsWith('.conf') || files.length >= MAX_ENTRIES) continue
          const text = await readText(tree, `${folder}/${name}`, this.#notes)
          if (text !== undefined) files.push({ name, text })
        }
      }
      if (files.length > 0) break
    }
    return readLoaderEntries(files)
  }

  async #systemdBoot(esp: Volume): Promise<BootStart | null> {
    const tree = treeOf(esp)
    if (!tree) return null
    const extended = this.#layout.volumes.find(({ partition }) => partition?.type === XBOOTLDR_TYPE)
    const conf = await readText(tree, '/loader/loader.conf', this.#notes)
    const programs: MenuEntry[] = []
    let home = esp
    let entries: readonly MenuEntry[] = []
    for (const volume of [esp, ...(extended ? [extended] : [])]) {
      const here = treeOf(volume)
      if (!here) continue
      const found = await this.#entries(volume, new FileTree(here.root))
      if (entries.length === 0 && found.length > 0) [entries, home] = [found, volume]
      for await (const { name } of here.list('/EFI/Linux'))
        if (/\.efi$/i.test(name) && programs.length < MAX_ENTRIES) programs.push(await unified(volume, `/EFI/Linux/${name}`))
    }
    const menu = readSystemdBoot(conf ?? '', entries, programs)
    const config = conf === undefined ? null : `${esp.name}:/loader/loader.conf`
    return this.#started('systemd-boot', config, menu, menu.chosen, home)
  }

  async #syslinux(): Promise<BootStart | null> {
    for (const volume of this.#layout.volumes) {
      const tree = treeOf(volume)
      for (const path of tree ? syslinuxConfigs : []) {
        const text = await readText(tree!, path, this.#notes)
        if (text === undefined) continue
        const menu = readSyslinuxConfig(text)
        const chosen = menu.chosen && relativeTo(menu.chosen, folderOf(path))
        return this.#started('syslinux', `${volume.name}:${path}`, menu, chosen, volume)
      }
    }
    return bare('syslinux')
  }

  async #started(
    loader: LoaderKind,
    config: string | null,
    menu: BootMenu | null,
    entry: MenuEntry | null,
    home: Volume,
  ): Promise<BootStart> {
    const notes = [...(menu?.notes ?? []), ...(entry?.notes ?? [])]
    const missing: string[] = []
    const isKernel = entry?.kernel != null && entry.kind !== 'chain'
    const kernel = isKernel ? await this.#places.find(entry.kernel, entry.root, home) : undefined
    if (isKernel && !kernel && !entry.kernel.includes('${')) missing.push(entry.kernel)
    const image = kernel && (await readKernelImage(kernel.file))
    let initramfs: BootStart['initramfs'] = null
    if (kernel && entry?.kind === 'efi') {
      const program = await readEfiProgram(kernel.file)
      const section = program?.sections.find(({ name }) => name === '.initrd')
      if (section)
        initramfs = {
          ...(await readInitramfs(stack(kernel.file, [window(section.offset, section.bytes)]))),
          path: placeText(kernel),
        }
    }
    for (const path of entry?.initramfs ?? []) {
      const found = await this.#places.find(path, entry!.root, home)
      if (!found) {
        if (!path.includes('${')) missing.push(path)
        continue
      }
      const name = placeText(found)
      const read = this.#initramfs.get(name) ?? (await readInitramfs(found.file))
      this.#initramfs.set(name, read)
      initramfs = initramfs ? joined(initramfs, read) : { ...read, path: name }
    }
    const version = image && (await this.#version(image.version, kernel!.path, initramfs))
    const modules = version && this.#system ? await readModules(this.#system.tree, version) : null
    return {
      loader,
      config,
      menu,
      entry,
      kernel: image ? { ...image, version: version ?? null, path: placeText(kernel!), modules } : null,
      initramfs,
      missing,
      notes,
    }
  }

  /** By its header, its name, or what its initramfs is for: the folder of its modules, if there is one. */
  async #version(said: string | null, path: string, initramfs: Initramfs | null): Promise<string | null> {
    if (said !== null) return said
    const known = this.#system ? await moduleVersions(this.#system.tree) : []
    return known.find((version) => path.includes(version)) ?? initramfs?.kernels[0] ?? (known.length === 1 ? known[0]! : null)
  }
}

const folderOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')))

const bare = (loader: LoaderKind): BootStart => ({
  loader,
  config: null,
  menu: null,
  entry: null,
  kernel: null,
  initramfs: null,
  missing: [],
  notes: [],
})

const joined = <Kind extends Initramfs>(one: Kind, other: Initramfs): Kind => ({
  ...one,
  compression: other.compression,
  modules: new Set([...one.modules, ...other.modules]),
  kernels: [...new Set([...one.kernels, ...other.kernels])],
  madeBy: one.madeBy ?? other.madeBy,
  hasInit: one.hasInit || other.hasInit,
  isWhole: one.isWhole && other.isWhole,
  notes: [...one.notes, ...other.notes],
})

/** Syslinux begins paths without a slash where its configuration is. */
const relativeTo = (entry: MenuEntry, folder: string): MenuEntry => {
  const at = (path: string) => (path.startsWith('/') ? path : `${folder}/${path}`)
  return { ...entry, kernel: entry.kernel && at(entry.kernel), initramfs: entry.initramfs.map(at) }
}

/** A kernel with its command line and initramfs in one program. */
async function unified(volume: Volume, path: string): Promise<MenuEntry> {
  const file = await treeOf(volume)?.open(path)
  const program = file && (await readEfiProgram(file))
  const text = program && (await sectionText(file, program, '.cmdline', 4096))
  return {
    title: path,
    id: path.slice(path.lastIndexOf('/') + 1),
    kernel: path,
    kind: 'efi',
    arguments: text?.trim() ?? '',
    initramfs: [],
    root: null,
    notes: [],
  }
}
