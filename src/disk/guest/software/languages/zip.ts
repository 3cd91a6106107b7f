import { inflateRawSync } from 'node:zlib'
import { ServiceError } from '../../../../base/errors.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { bytesSource } from '../../../block/memory-source.ts'
import { window } from '../../../filters/window.ts'
import { refuse } from './language-reader.ts'

/** A file in an archive. */
export interface Member {
  readonly name: string
  readonly method: number
  readonly storedBytes: number
  readonly bytes: number
  /** Of its local header. */
  readonly offset: number
}

/** Source: APPNOTE.TXT of ZIP, sections 4.3.7, 4.3.12 and 4.3.16. */
const signatures = { local: 0x04034b50, member: 0x02014b50, end: 0x06054b50 }
const END_BYTES = 22
const MEMBER_BYTES = 46
const LOCAL_BYTES = 30
const MAX_COMMENT_BYTES = 64 * KiB
const methods = { stored: 0, deflated: 8 }

/**
 * The list at the end of an archive; what stands before the archive, a script that starts it, is passed over.
 * @throws ServiceError `invalid-image` where there is none; `unsupported` for ZIP64; `too-large` for a list of more than `maxListBytes`
 */
export async function membersOf(
  file: BlockSource,
  maxListBytes: number,
): Promise<{ readonly members: readonly Member[]; readonly listBytes: number }> {
  const tailBytes = Math.min(file.size, END_BYTES + MAX_COMMENT_BYTES)
  const tail = Buffer.from(await file.read(file.size - tailBytes, tailBytes))
  const at = tail.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'))
  if (at < 0 || at + END_BYTES > tail.length) throw refuse('it has no end of a ZIP archive')
  const [count, bytes, offset] = [tail.readUInt16LE(at + 10), tail.readUInt32LE(at + 12), tail.readUInt32LE(at + 16)]
  if (count === 0xffff || offset === 0xffffffff)
    throw new ServiceError('unsupported', 'it is a ZIP64 archive', { reason: 'unknown-feature' })
  if (bytes > maxListBytes)
    throw new ServiceError('too-large', `the list of its files has ${bytes} bytes, more than ${maxListBytes}`)
  const start = file.size - tailBytes + at - bytes
  const before = start - offset
  if (start < 0 || before < 0) throw refuse(`the list of its files is said to be at ${offset}, ${bytes} bytes long`)
  const list = Buffer.from(await file.read(start, bytes))
  const members: Member[] = []
  for (let from = 0; members.length < count; ) {
    if (from + MEMBER_BYTES > list.length || list.readUInt32LE(from) !== signatures.member)
      throw refuse(`the list of its files ends after ${members.length} of ${count}`)
    const nameBytes = list.readUInt16LE(from + 28)
    members.push({
      name: list.toString('utf8', from + MEMBER_BYTES, from + MEMBER_BYTES + nameBytes),
      method: list.readUInt16LE(from + 10),
      storedBytes: list.readUInt32LE(from + 20),
      bytes: list.readUInt32LE(from + 24),
      offset: before + list.readUInt32LE(from + 42),
    })
    from += MEMBER_BYTES + nameBytes + list.readUInt16LE(from + 30) + list.readUInt16LE(from + 32)
  }
  return { members, listBytes: bytes }
}

/** The bytes of a member: where they lie, or unpacked in memory. @throws ServiceError `too-large` beyond `maxBytes` in memory */
export async function openMember(file: BlockSource, member: Member, maxBytes: number): Promise<BlockSource> {
  if (member.offset + LOCAL_BYTES > file.size) throw refuse(`${member.name} is said to be at ${member.offset}`)
  const head = Buffer.from(await file.read(member.offset, LOCAL_BYTES))
  if (head.readUInt32LE(0) !== signatures.local) throw refuse(`there is no ${member.name} at ${member.offset}`)
  const start = member.offset + LOCAL_BYTES + head.readUInt16LE(26) + head.readUInt16LE(28)
  if (start + member.storedBytes > file.size) throw refuse(`${member.name} ends after the archive`)
  if (member.method === methods.stored) return window(start, member.storedBytes)(file)
  if (member.method !== methods.deflated)
    throw new ServiceError('unsupported', `${member.name} is packed by method ${member.method}`, { reason: 'unknown-feature' })
  if (member.bytes > maxBytes || member.storedBytes > maxBytes)
    throw new ServiceError('too-large', `${member.name} has ${member.bytes} bytes, more than ${maxBytes}`, { maxBytes })
  try {
    return bytesSource(inflateRawSync(await file.read(start, member.storedBytes), { maxOutputLength: Math.max(1, member.bytes) }))
  } catch (error) {
    if (error instanceof ServiceError) throw error
    throw refuse(`${member.name} cannot be unpacked: ${error instanceof Error ? error.message : ''}`)
  }
}
