import { bytes, struct, u32le, u64le } from '../../../base/struct.ts'
import { MiB } from '../../../base/units.ts'
import { type Look, refusal, type Signature } from './recognition.ts'

/** VDI header, little-endian. Source: VirtualBox, VDICore.h, VDIHEADER1; the same in QEMU block/vdi.c. */
const header = struct('vdi header', {
  version: u32le(0x44),
  imageType: u32le(0x4c),
  blockMapOffset: u32le(0x154),
  dataOffset: u32le(0x158),
  virtualBytes: u64le(0x170),
  blockBytes: u32le(0x178),
  blockExtraBytes: u32le(0x17c),
  blocks: u32le(0x180),
  blocksAllocated: u32le(0x184),
  linkId: bytes(0x1a8, 16),
  parentId: bytes(0x1b8, 16),
})
const SIGNATURE = [0x7f, 0x10, 0xda, 0xbe]
const SIGNATURE_OFFSET = 0x40
const VERSION_1_1 = 0x00010001
const DYNAMIC = 1
const FIXED = 2
const MAX_BLOCK_BYTES = 64 * MiB // VirtualBox and QEMU write 1 MiB
const MAX_BLOCKS = 0x1fffffff // QEMU's VDI_BLOCKS_IN_IMAGE_MAX; bounds the block map at 2 GiB

export const virtualboxSignatures: readonly Signature[] = [
  {
    name: 'vdi',
    kind: 'disk',
    diskFormat: 'vdi',
    find: (look) => (look.has(SIGNATURE_OFFSET, SIGNATURE) ? SIGNATURE_OFFSET : undefined),
    inspect,
  },
]

async function inspect(look: Look) {
  const h = header.parse(look.head)
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refusal('vdi', 'malformed', problem)
  }
  check(h.version === VERSION_1_1, 'unknown version; 1.1 is known')
  const isChild = [...h.linkId, ...h.parentId].some((byte) => byte !== 0)
  if (isChild || (h.imageType !== DYNAMIC && h.imageType !== FIXED)) {
    throw refusal(
      'vdi',
      'external-reference',
      'the disk is the child of another file, which is never followed; clone it to a full one',
    )
  }
  const isBlockSize = h.blockBytes >= 4096 && h.blockBytes <= MAX_BLOCK_BYTES && Number.isInteger(Math.log2(h.blockBytes))
  check(isBlockSize, 'the block size is no power of 2 from 4 KiB to 64 MiB')
  check(h.blockExtraBytes === 0, 'blocks with extra data are not known')
  check(
    h.blocks <= MAX_BLOCKS && h.virtualBytes <= h.blocks * h.blockBytes,
    'the block map is too large, or too small for the disk',
  )
  check(h.blocksAllocated <= h.blocks, 'more blocks are allocated than there are')
  check(h.blockMapOffset % 512 === 0 && h.dataOffset % 512 === 0 && h.blockMapOffset >= 512, 'a table is not aligned to a sector')
  const mapEnd = h.blockMapOffset + h.blocks * 4
  check(mapEnd <= h.dataOffset && (h.blocks === 0 || mapEnd <= look.fileBytes), 'the block map does not fit the file')
  return { virtualBytes: Math.ceil(h.virtualBytes / 512) * 512 }
}
