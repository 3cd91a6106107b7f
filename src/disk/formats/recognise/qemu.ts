import { struct, u32be, u32le, u64be, u64le } from '../../../base/struct.ts'
import { plainSignature, refusal, type Signature } from './recognition.ts'

const QCOW_MAGIC = 'QFI\xfb'
const qcowHeader = struct('qcow2 header', { version: u32be(4), virtualBytes: u64be(24) })
/** Parallels and Virtuozzo images, little-endian. Source: QEMU docs/interop/parallels, "Image header". */
const ploopHeader = struct('ploop header', {
  version: u32le(16),
  blockSectors: u32le(28),
  batEntries: u32le(32),
  diskSectors: u64le(36),
})
const PLOOP_BAT_OFFSET = 64
const MAX_PLOOP_BAT_BYTES = 512 * 1024 * 1024 // QEMU refuses BATs of 2^29 bytes and more

const isQcow1 = (version: number) => version === 1

export const qemuSignatures: readonly Signature[] = [
  {
    name: 'qcow2',
    kind: 'disk',
    diskFormat: 'qcow2',
    find: (look) => (look.has(0, QCOW_MAGIC) && !isQcow1(look.u32be(4)) ? 0 : undefined),
    /** The driver checks the rest of the header; here it is only of interest how large the disk claims to be. */
    inspect: async (look) => ({ virtualBytes: qcowHeader.parse(look.head).virtualBytes }),
  },
  {
    name: 'qcow',
    kind: 'disk',
    diskFormat: null,
    find: (look) => (look.has(0, QCOW_MAGIC) && isQcow1(look.u32be(4)) ? 0 : undefined),
  },
  { ...plainSignature('qed', 'disk', 0, 'QED\0'), diskFormat: 'qed' },
  plainSignature('bochs', 'disk', 0, 'Bochs Virtual HD Image'),
  plainSignature('cloop', 'disk', 0, '#!/bin/sh\n#V2.0 Format\nmodprobe cloop'),
  {
    name: 'dmg',
    kind: 'disk',
    diskFormat: null,
    find: (look) => (look.endsWith(512, 'koly') ? look.fileBytes - 512 : undefined),
  },
  {
    name: 'ploop',
    kind: 'disk',
    diskFormat: 'ploop',
    find: (look) => (look.has(0, 'WithoutFreeSpace') || look.has(0, 'WithouFreSpacExt') ? 0 : undefined),
    async inspect(look) {
      const { version, blockSectors, batEntries, diskSectors } = ploopHeader.parse(look.head)
      if (version !== 2) throw refusal('ploop', 'malformed', `unknown version ${version}; 2 is known`, { version })
      if (blockSectors === 0) throw refusal('ploop', 'malformed', 'blocks have no sectors')
      const batBytes = batEntries * 4
      if (batBytes > MAX_PLOOP_BAT_BYTES || batBytes > look.fileBytes - PLOOP_BAT_OFFSET) {
        throw refusal('ploop', 'malformed', 'the block table does not fit the file', { batEntries })
      }
      if (batEntries * blockSectors < diskSectors)
        throw refusal('ploop', 'malformed', 'the block table is too small for the disk')
      return { virtualBytes: diskSectors * 512 }
    },
  },
]
