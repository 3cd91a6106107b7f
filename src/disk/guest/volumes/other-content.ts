import type { BlockSource } from '../../block/block-source.ts'
import type { OtherContent } from './volumes.ts'

const HEAD_BYTES = 4096

/** What a volume holds that is no file system. Undefined where it is nothing known. */
export async function recogniseOther(volume: BlockSource): Promise<OtherContent | undefined> {
  const head = Buffer.from(await volume.read(0, Math.min(volume.size, HEAD_BYTES)))
  return luks(head) ?? swap(head)
}

/** LUKS1 and 2: cryptsetup docs/on-disk-format.pdf, and LUKS2 docs, section "Binary header". Both have the UUID at byte 168. */
function luks(head: Buffer): OtherContent | undefined {
  if (head.length < 512 || head.toString('latin1', 0, 6) !== 'LUKS\xba\xbe') return undefined
  const version = head.readUInt16BE(6)
  const label = version === 2 ? cString(head.subarray(24, 72)) : ''
  const note = `it is encrypted (LUKS${version}), and cannot be looked into`
  return { kind: 'other', type: 'crypto_LUKS', label, uuid: cString(head.subarray(168, 208)), note }
}

const SWAP_MAGIC_AT = 4086 // the end of the first page, of 4 KiB
/** Linux include/linux/swap.h, union swap_header. */
function swap(head: Buffer): OtherContent | undefined {
  if (head.length < HEAD_BYTES || head.toString('latin1', SWAP_MAGIC_AT) !== 'SWAPSPACE2') return undefined
  const hex = head.toString('hex', 1036, 1052)
  const uuid = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
  return { kind: 'other', type: 'swap', label: cString(head.subarray(1052, 1068)), uuid, note: '' }
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0)
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end)
}
