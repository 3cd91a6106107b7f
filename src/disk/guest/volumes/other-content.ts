import type { BlockSource } from '../../block/block-source.ts'
import type { OtherContent } from './volumes.ts'

const HEAD_BYTES = 16_384
/** Of swap: a page. */
const PAGE_BYTES = 4096

/** What a volume holds that is no file system. Undefined where it is nothing known. Reads 16 KiB at its beginning, and two places at its end. */
export async function recogniseOther(volume: BlockSource): Promise<OtherContent | undefined> {
  const head = Buffer.from(await volume.read(0, Math.min(volume.size, HEAD_BYTES)))
  return luks(head) ?? swap(head) ?? bitLocker(head) ?? bcache(head) ?? raid(volume, head)
}

/** LUKS1 and 2: cryptsetup docs/on-disk-format.pdf, and docs/on-disk-format-luks2.pdf, section 2.1, "Binary header". Both have the UUID at byte 168. */
function luks(head: Buffer): OtherContent | undefined {
  if (head.length < 512 || head.toString('latin1', 0, 6) !== 'LUKS\xba\xbe') return undefined
  const version = head.readUInt16BE(6)
  const label = version === 2 ? cString(head.subarray(24, 72)) : ''
  const cipher = version === 1 ? `${cString(head.subarray(8, 40))}-${cString(head.subarray(40, 72))}` : cipherOfLuks2(head)
  const how = [`LUKS${version}`, cipher].filter((part) => part !== '').join(', ')
  return {
    kind: 'other',
    type: 'crypto_LUKS',
    label,
    uuid: cString(head.subarray(168, 208)),
    note: `it is encrypted (${how}), and cannot be looked into`,
  }
}

const LUKS2_JSON_AT = 4096
/** Section 3.3, "Segments": empty where the description is longer than what is looked at, or damaged. */
function cipherOfLuks2(head: Buffer): string {
  try {
    const described: unknown = JSON.parse(cString(head.subarray(LUKS2_JSON_AT)))
    const [segment] = Object.values((described as { segments?: Record<string, { encryption?: unknown }> }).segments ?? {})
    return typeof segment?.encryption === 'string' ? segment.encryption : ''
  } catch {
    return ''
  }
}

/** libbde, "BitLocker Drive Encryption (BDE) format specification", section "Volume header". */
function bitLocker(head: Buffer): OtherContent | undefined {
  if (head.length < 512 || head.toString('latin1', 3, 11) !== '-FVE-FS-') return undefined
  return { kind: 'other', type: 'BitLocker', label: '', uuid: '', note: 'it is encrypted (BitLocker), and cannot be looked into' }
}

const BCACHE_AT = 4096
const BCACHE_MAGIC = 'c68573f64e1a45ca8265f57f48ba6d81'
const BCACHE_VERSIONS_OF_CACHES: readonly bigint[] = [0n, 3n, 5n]
/** Linux drivers/md/bcache/bcache_ondisk.h, struct cache_sb. */
function bcache(head: Buffer): OtherContent | undefined {
  const block = head.subarray(BCACHE_AT, BCACHE_AT + 512)
  if (block.length < 512 || block.toString('hex', 24, 40) !== BCACHE_MAGIC) return undefined
  const isCache = BCACHE_VERSIONS_OF_CACHES.includes(block.readBigUInt64LE(16))
  const note = `it is the ${isCache ? 'cache' : 'backing device'} of a bcache, which is not read here`
  return { kind: 'other', type: 'bcache', label: cString(block.subarray(72, 104)), uuid: uuidOf(block.subarray(40, 56)), note }
}

const RAID_MAGIC = 0xa92b4efc
const RAID_BYTES = 256
/** Linux include/uapi/linux/raid/md_p.h: superblocks of version 1 begin at 0, at 4 KiB, or 8 KiB before the end; those of 0.90 are in the last whole 64 KiB. */
async function raid(volume: BlockSource, head: Buffer): Promise<OtherContent | undefined> {
  const atEnd = async (offset: number) =>
    offset >= 0 && offset + RAID_BYTES <= volume.size ? Buffer.from(await volume.read(offset, RAID_BYTES)) : Buffer.alloc(0)
  const last = await atEnd(Math.floor((volume.size - 8192) / 4096) * 4096)
  for (const block of [head, head.subarray(4096), last]) {
    if (block.length < RAID_BYTES || block.readUInt32LE(0) !== RAID_MAGIC || block.readUInt32LE(4) !== 1) continue
    return raidMember(
      block.readInt32LE(72),
      block.readUInt32LE(92),
      cString(block.subarray(32, 64)),
      uuidOf(block.subarray(16, 32)),
    )
  }
  const old = await atEnd(Math.floor(volume.size / 65_536) * 65_536 - 65_536)
  if (old.length < RAID_BYTES || old.readUInt32LE(0) !== RAID_MAGIC || old.readUInt32LE(4) !== 0) return undefined
  const words = [20, 52, 56, 60].map((at) => old.readUInt32LE(at).toString(16).padStart(8, '0'))
  return raidMember(old.readInt32LE(28), old.readUInt32LE(40), '', uuidOf(Buffer.from(words.join(''), 'hex')))
}

const raidNames: Readonly<Record<number, string>> = { [-1]: 'linear', [-4]: 'multipath' }
function raidMember(level: number, devices: number, label: string, uuid: string): OtherContent {
  const note = `it is one of ${devices} devices of a RAID (${raidNames[level] ?? `level ${level}`}), which is not put together here`
  return { kind: 'other', type: 'linux_raid_member', label, uuid, note }
}

const SWAP_MAGIC_AT = 4086 // the end of the first page, of 4 KiB
/** Linux include/linux/swap.h, union swap_header. */
function swap(head: Buffer): OtherContent | undefined {
  if (head.length < PAGE_BYTES || head.toString('latin1', SWAP_MAGIC_AT, PAGE_BYTES) !== 'SWAPSPACE2') return undefined
  return {
    kind: 'other',
    type: 'swap',
    label: cString(head.subarray(1052, 1068)),
    uuid: uuidOf(head.subarray(1036, 1052)),
    note: '',
  }
}

function uuidOf(bytes: Buffer): string {
  const hex = bytes.toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0)
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end)
}
