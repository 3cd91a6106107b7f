import { type Look, plainSignature, refusal, type Signature } from './recognition.ts'

/** What the bytes of a raw disk may begin with: partition tables, file systems, volumes. Any of them is declared as raw. */

const BOOT_SIGNATURE = [0x55, 0xaa]
const PARTITION_ENTRIES = [446, 462, 478, 494]
const MAX_LUKS1_ITERATIONS = 12_000_000 // what OpenStack accepts too; more would stall whoever unlocks it

const isVolumeBootSector = (look: Look): boolean =>
  look.has(3, 'NTFS    ') ||
  look.has(3, 'EXFAT   ') ||
  look.has(3, '-FVE-FS-') ||
  look.has(54, 'FAT12   ') ||
  look.has(54, 'FAT16   ') ||
  look.has(82, 'FAT32   ')

/** Boot flags are 0x00 or 0x80, and some entry is in use. */
const hasPartitions = (look: Look): boolean =>
  PARTITION_ENTRIES.every((at) => (look.byte(at) & 0x7f) === 0) && PARTITION_ENTRIES.some((at) => look.byte(at + 4) !== 0)

/** What an ISO may carry so that it starts from a USB stick, or on a Macintosh, as well. */
export const isoCompanions: readonly string[] = ['mbr', 'gpt', 'apm', 'hfs', 'boot-sector']

export const contentSignatures: readonly Signature[] = [
  {
    name: 'mbr',
    kind: 'content',
    diskFormat: 'raw',
    find: (look) => (look.has(510, BOOT_SIGNATURE) && !isVolumeBootSector(look) && hasPartitions(look) ? 510 : undefined),
  },
  {
    name: 'boot-sector',
    kind: 'content',
    diskFormat: 'raw',
    find: (look) => (look.has(510, BOOT_SIGNATURE) && (isVolumeBootSector(look) || !hasPartitions(look)) ? 510 : undefined),
  },
  {
    name: 'gpt',
    kind: 'content',
    diskFormat: 'raw',
    find: (look) => [512, 4096].find((offset) => look.has(offset, 'EFI PART')), // sectors of 512 bytes, or of 4096
  },
  {
    name: 'apm',
    kind: 'content',
    diskFormat: 'raw',
    find: (look) => [512, 2048, 4096].find((offset) => look.has(offset, 'PM\0\0')),
  },
  plainSignature('ntfs', 'content', 3, 'NTFS    '),
  plainSignature('exfat', 'content', 3, 'EXFAT   '),
  plainSignature('bitlocker', 'content', 3, '-FVE-FS-'),
  {
    name: 'fat',
    kind: 'content',
    diskFormat: 'raw',
    find: (look) => (look.has(54, 'FAT12   ') || look.has(54, 'FAT16   ') ? 54 : look.has(82, 'FAT32   ') ? 82 : undefined),
  },
  plainSignature('xfs', 'content', 0, 'XFSB'),
  plainSignature('ext', 'content', 1080, [0x53, 0xef]),
  plainSignature('btrfs', 'content', 0x10040, '_BHRfS_M'),
  plainSignature('f2fs', 'content', 1024, [0x10, 0x20, 0xf5, 0xf2]),
  plainSignature('erofs', 'content', 1024, [0xe2, 0xe1, 0xf5, 0xe0]),
  plainSignature('hfs', 'content', 1024, 'H+', 'HX', 'BD'),
  plainSignature('squashfs', 'content', 0, 'hsqs', 'sqsh'),
  plainSignature('swap', 'content', 4086, 'SWAPSPACE2', 'SWAP-SPACE'),
  plainSignature('raid', 'content', 4096, [0xfc, 0x4e, 0x2b, 0xa9]),
  {
    name: 'lvm',
    kind: 'content',
    diskFormat: 'raw',
    find: (look) => [0, 512, 1024, 1536].find((offset) => look.has(offset, 'LABELONE')),
  },
  {
    name: 'luks',
    kind: 'content',
    diskFormat: 'raw',
    find: (look) => (look.has(0, 'LUKS\xba\xbe') ? 0 : undefined),
    /** No key is ever derived here. Source: LUKS1 on-disk format 1.2.3, "phdr" and "key slot", big-endian. */
    async inspect(look) {
      const version = look.byte(6) * 256 + look.byte(7)
      if (version !== 1 && version !== 2) throw refusal('luks', 'malformed', `unknown version ${version}; 1 and 2 are known`)
      const keySlots = Array.from({ length: 8 }, (_, slot) => 208 + slot * 48 + 4)
      const iterations = version === 1 ? [164, ...keySlots].map((at) => look.u32be(at)) : []
      if (iterations.some((count) => count > MAX_LUKS1_ITERATIONS)) {
        throw refusal('luks', 'encrypted', `a key asks for more than ${MAX_LUKS1_ITERATIONS} iterations`)
      }
      return { note: 'luks: the disk is encrypted; what is inside cannot be inspected' }
    },
  },
]
