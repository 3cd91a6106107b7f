import type { BlockSource } from '../../block/block-source.ts'
import { ELF_HEAD_BYTES, elfArchitecture } from '../system/elf.ts'
import { readEfiProgram } from './efi-program.ts'

/** What the first bytes of a kernel say. Strings are the guest's. */
export interface KernelImage {
  readonly kind: 'bzImage' | 'Image' | 'efi' | 'elf' | 'gzip' | 'unknown'
  /** As `uname -r`; null where the header does not say. */
  readonly version: string | null
  readonly architecture: string | null
  /** UEFI firmware can start it by itself. */
  readonly hasEfiStub: boolean
  readonly isSigned: boolean
}

/** Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
const BOOT_FLAG_OFFSET = 0x1fe
const HEADER_MAGIC_OFFSET = 0x202
const PROTOCOL_OFFSET = 0x206
const VERSION_POINTER_OFFSET = 0x20e // from byte 0x200
const LOAD_FLAGS_OFFSET = 0x236
const FLAG_64_BIT = 1 // XLF_KERNEL_64, since protocol 2.12
/** Linux Documentation/arch/arm64/booting.rst, arch/riscv/boot-image-header.rst: the same place. */
const IMAGE_MAGIC_OFFSET = 56
const HEAD_BYTES = 32 * 1024 // a setup of 64 sectors, the largest that the version can lie in
const MAX_VERSION = 256

/** Takes any file. Reads 48 KiB. */
export async function readKernelImage(file: BlockSource): Promise<KernelImage> {
  const head = Buffer.from(await file.read(0, Math.min(HEAD_BYTES, file.size)))
  const program = await readEfiProgram(file)
  const efi = { hasEfiStub: program !== undefined, isSigned: program?.isSigned ?? false }
  if (
    head.length > LOAD_FLAGS_OFFSET + 2 &&
    head.readUInt16LE(BOOT_FLAG_OFFSET) === 0xaa55 &&
    head.toString('latin1', HEADER_MAGIC_OFFSET, HEADER_MAGIC_OFFSET + 4) === 'HdrS'
  ) {
    const is64 = head.readUInt16LE(PROTOCOL_OFFSET) >= 0x20c && (head.readUInt16LE(LOAD_FLAGS_OFFSET) & FLAG_64_BIT) !== 0
    const pointer = head.readUInt16LE(VERSION_POINTER_OFFSET)
    return {
      kind: 'bzImage',
      version: pointer === 0 ? null : versionAt(head, pointer + 0x200),
      architecture: is64 ? 'x86_64' : 'i686',
      ...efi,
    }
  }
  const magic = head.length >= IMAGE_MAGIC_OFFSET + 4 ? head.toString('latin1', IMAGE_MAGIC_OFFSET, IMAGE_MAGIC_OFFSET + 4) : ''
  if (magic === 'ARM\x64' || magic === 'RSC\x05')
    return { kind: 'Image', version: null, architecture: magic === 'ARM\x64' ? 'aarch64' : 'riscv64', ...efi }
  if (program) return { kind: 'efi', version: null, architecture: program.architecture, ...efi }
  const elf = head.length >= ELF_HEAD_BYTES ? elfArchitecture(head) : null
  if (elf !== null) return { kind: 'elf', version: null, architecture: elf, ...efi }
  return { kind: head[0] === 0x1f && head[1] === 0x8b ? 'gzip' : 'unknown', version: null, architecture: null, ...efi }
}

/** `6.1.0-18-amd64 (debian-kernel@…) #1 SMP …`: the first word. */
function versionAt(head: Buffer, at: number): string | null {
  const text = head.toString('latin1', at, at + MAX_VERSION)
  return /^[0-9][\w.+~-]*/.exec(text)?.[0] ?? null
}
