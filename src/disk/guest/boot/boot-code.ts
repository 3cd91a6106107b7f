import type { BlockSource } from '../../block/block-source.ts'

/** What a first sector starts. */
export type BootCode = 'grub' | 'syslinux' | 'windows' | 'lilo' | 'none' | 'unknown'

const CODE_BYTES = 440 // UEFI 2.10, table 5.1
const SECTOR_BYTES = 512

/** What the boot sectors of each loader say when they fail: their own words, in that order. */
const words: readonly (readonly [text: string, code: BootCode])[] = [
  ['Geom\0Hard Disk\0Read\0 Error', 'grub'], // grub-core/boot/i386/pc/boot.S
  ['Missing OS', 'syslinux'], // syslinux mbr/gptmbr.S
  ['Operating system load error', 'syslinux'], // mbr.S
  ['isolinux.bin missing or corrupt', 'syslinux'], // isohdpfx.S
  ['Error loading operating system', 'windows'],
  ['An operating system wasn', 'windows'],
  ['BOOTMGR is missing', 'windows'],
  ['NTLDR is missing', 'windows'],
  ['This is not a bootable disk', 'none'], // mkfs.fat
]

/** Of a disk or a partition, by its first sector. Reads 512 bytes. */
export async function readBootCode(volume: Pick<BlockSource, 'size' | 'read'>): Promise<BootCode> {
  if (volume.size < SECTOR_BYTES) return 'none'
  const sector = Buffer.from(await volume.read(0, SECTOR_BYTES))
  const text = sector.toString('latin1')
  const name = text.slice(3, 11)
  if (name === 'SYSLINUX' || name === 'EXTLINUX') return 'syslinux'
  if (text.slice(6, 10) === 'LILO') return 'lilo'
  const found = words.find(([said]) => text.includes(said))?.[1]
  if (found) return found
  if (sector.readUInt16LE(510) !== 0xaa55) return 'none'
  const isEmpty = sector.subarray(0, CODE_BYTES).every((byte) => byte === 0)
  return isEmpty ? 'none' : 'unknown'
}

/** What GRUB's boot sector loads: boot.S, GRUB_BOOT_MACHINE_KERNEL_SECTOR. @returns whether something is at that place */
export async function hasGrubCore(disk: Pick<BlockSource, 'size' | 'read'>): Promise<boolean> {
  const sector = Buffer.from(await disk.read(0, SECTOR_BYTES))
  const at = Number(sector.readBigUInt64LE(0x5c)) * SECTOR_BYTES
  if (at + SECTOR_BYTES > disk.size) return false
  return (await disk.read(at, SECTOR_BYTES)).some((byte) => byte !== 0)
}
