import { isServiceError } from '../../../base/errors.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { type EfiProgram, readEfiProgram, sectionText } from './efi-program.ts'

export type LoaderKind = 'grub' | 'syslinux' | 'systemd-boot' | 'shim' | 'windows' | 'unified-kernel' | 'lilo' | 'unknown'

/** A program of an ESP that firmware may start. */
export interface EfiLoader {
  /** In the file system of the ESP, as its names are: `/EFI/BOOT/BOOTX64.EFI`. */
  readonly path: string
  readonly kind: LoaderKind
  readonly architecture: string | null
  readonly isSigned: boolean
  /** Firmware starts it when it knows nothing about the disk. UEFI 2.10, section 3.5.1.1. */
  readonly isFallback: boolean
}

const FALLBACK = /^boot(x64|ia32|aa64|arm|riscv64|loongarch64)\.efi$/i
const MAX_FOLDERS = 64
const MAX_PROGRAMS = 128
const SBAT_BYTES = 4096

/** The programs in the folders of /EFI, in the order of their paths. What cannot be read is left out with a note. */
export async function readEfiLoaders(tree: FileTree, notes: { add(note: string): void }): Promise<readonly EfiLoader[]> {
  const loaders: EfiLoader[] = []
  let folders = 0
  for await (const folder of tree.list('/EFI')) {
    folders += 1
    if (folders > MAX_FOLDERS) break
    // Microsoft keeps its loader one deeper
    for (const path of [`/EFI/${folder.name}`, `/EFI/${folder.name}/Boot`]) {
      for await (const { name } of tree.list(path)) {
        if (!/\.efi$/i.test(name) || loaders.length >= MAX_PROGRAMS) continue
        const loader = await readLoader(tree, `${path}/${name}`).catch((error: unknown) => {
          if (!isServiceError(error)) throw error
          notes.add(`${path}/${name} could not be read: ${error.message}`)
          return undefined
        })
        if (loader) loaders.push(loader)
      }
    }
  }
  return loaders.sort((a, b) => (a.path < b.path ? -1 : 1))
}

async function readLoader(tree: FileTree, path: string): Promise<EfiLoader | undefined> {
  const file = await tree.open(path)
  const program = file && (await readEfiProgram(file))
  if (!program) return undefined
  const { architecture, isSigned } = program
  const name = path.slice(path.lastIndexOf('/') + 1)
  const isFallback = FALLBACK.test(name) && /^\/EFI\/BOOT\//i.test(path)
  return {
    path,
    kind: kindOf(name, program, (await sectionText(file, program, '.sbat', SBAT_BYTES)) ?? ''),
    architecture,
    isSigned,
    isFallback,
  }
}

/** By its sections and its SBAT, which name what it is; else by its name. Source: shim, SBAT.md; UAPI.5, unified kernel images. */
function kindOf(name: string, { sections }: EfiProgram, sbat: string): LoaderKind {
  const has = (section: string) => sections.some((each) => each.name === section)
  if (has('.linux')) return 'unified-kernel'
  if (has('mods') || /^grub[,.]/m.test(sbat)) return 'grub'
  if (has('.vendor_cert') || /^shim,/m.test(sbat)) return 'shim'
  if (/^systemd(-boot)?,/m.test(sbat) || has('.sdmagic')) return 'systemd-boot'
  if (/^bootmgfw\.efi$/i.test(name)) return 'windows'
  if (/^grub/i.test(name)) return 'grub'
  if (/^shim/i.test(name)) return 'shim'
  return /^systemd-boot/i.test(name) ? 'systemd-boot' : 'unknown'
}
