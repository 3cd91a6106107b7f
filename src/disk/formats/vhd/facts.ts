import type { BlockSource } from '../../block/block-source.ts'
import type { Fact } from '../format-driver.ts'
import { FOOTER_BYTES, footer } from './footer.ts'
import { readLayout } from './header.ts'

/** Seconds from 1970 to the epoch of the specification, 2000-01-01. */
const EPOCH_SECONDS = 946_684_800

/** @throws ServiceError `invalid-image` | `unsupported` */
export async function factsOf(file: BlockSource): Promise<readonly Fact[]> {
  const vhd = await readLayout(file)
  const { timestamp, creatorVersion, creatorHost, cylinders, heads, sectorsPerTrack, uniqueId } = footer.parse(
    await file.read(vhd.footerOffset, Math.min(FOOTER_BYTES, file.size - vhd.footerOffset)),
  )
  const hex = Buffer.from(uniqueId).toString('hex')
  return [
    { name: 'type', value: vhd.kind },
    ...(vhd.kind === 'fixed' ? [] : [{ name: 'block size', value: vhd.blockBytes, unit: 'bytes' as const }]),
    { name: 'creator', value: `${vhd.footer.creator.trim()} ${creatorVersion >>> 16}.${creatorVersion & 0xffff}` },
    { name: 'creator host', value: Buffer.from(creatorHost).toString('latin1') },
    { name: 'created', value: new Date((EPOCH_SECONDS + timestamp) * 1000).toISOString().replace('.000', '') },
    { name: 'current size', value: vhd.footer.currentBytes, unit: 'bytes' },
    { name: 'geometry', value: `${cylinders}/${heads}/${sectorsPerTrack}` },
    { name: 'uuid', value: hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-') },
    ...(vhd.footer.isSaved ? [{ name: 'saved state', value: true }] : []),
    ...(vhd.kind === 'differencing' ? [{ name: 'parent', value: await parentName(file, vhd.headerOffset) }] : []),
  ]
}

const PARENT_NAME_AT = 64
const PARENT_NAME_BYTES = 512

/** "Parent Unicode Name" of the dynamic disk header: UTF-16, big-endian. */
async function parentName(file: BlockSource, headerOffset: number): Promise<string> {
  const bytes = await file.read(headerOffset + PARENT_NAME_AT, PARENT_NAME_BYTES)
  const [name = ''] = new TextDecoder('utf-16be').decode(bytes).split('\0', 1)
  return name
}
