import { crc32 } from 'node:zlib'
import { ServiceError } from '../../../../base/errors.ts'
import { bytes, struct, u32le, u64le } from '../../../../base/struct.ts'
import { MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { parseConfig, type Section } from './config.ts'
import { refuse } from './refuse.ts'

/** Label, header and areas of a physical volume; little-endian. Source: LVM2 lib/format_text/layout.h and lib/label/label.h. */
const SECTOR_BYTES = 512
const LABEL_SECTORS = 4
const label = struct('LVM2 label', {
  id: bytes(0, 8),
  sector: u64le(8),
  checksum: u32le(16),
  headerOffset: u32le(20), // bytes of the sector
  type: bytes(24, 8),
})
const LABEL_ID = 'LABELONE'
const LABEL_TYPE = 'LVM2 001'
const LABEL_CHECKED_FROM = 20
const header = struct('LVM2 physical volume', { uuid: bytes(0, 32), deviceBytes: u64le(32) })
const AREAS_AT = 40
const area = struct('LVM2 area', { offset: u64le(0), bytes: u64le(8) })
const AREA_BYTES = 16
const areaHeader = struct('LVM2 metadata area', {
  checksum: u32le(0),
  magic: bytes(4, 16),
  version: u32le(20),
  start: u64le(24),
  bytes: u64le(32),
  textOffset: u64le(40), // from the start of the area; 0: there is none
  textBytes: u64le(48),
  textChecksum: u32le(56),
  flags: u32le(60),
})
const AREA_MAGIC = ' LVM2 x[5A%r0N*>'
const AREA_HEADER_BYTES = 512
const FLAG_IGNORED = 1
/** A volume group of thousands of volumes has 4 MiB; bounds what is read and parsed. */
const MAX_TEXT_BYTES = 4 * MiB
const CHECKSUM_BEGIN = 0xf597a6cf

export interface PhysicalVolume {
  /** As LVM writes it: `n4C6R8-kPcf-…`. */
  readonly uuid: string
  /** The newest description of its volume group that it has; undefined where it has none, which others of the group may. */
  readonly description: Section | undefined
  /** Why there is none that can be read. */
  readonly problem: ServiceError | undefined
}

/** @returns undefined where it is none @throws ServiceError `invalid-image` where its label is damaged */
export async function readPhysicalVolume(volume: BlockSource): Promise<PhysicalVolume | undefined> {
  const head = await volume.read(0, Math.min(volume.size, LABEL_SECTORS * SECTOR_BYTES))
  for (let index = 0; (index + 1) * SECTOR_BYTES <= head.length; index += 1) {
    const sector = head.subarray(index * SECTOR_BYTES, (index + 1) * SECTOR_BYTES)
    const { id, type, sector: own, checksum, headerOffset } = labelOf(sector) ?? {}
    if (!id || textOf(type!) !== LABEL_TYPE) continue
    const check = (holds: boolean, problem: string) => {
      if (!holds) throw refuse('malformed', `its label, in sector ${index}: ${problem}`, { offset: index * SECTOR_BYTES })
    }
    check(own === index, `it says sector ${own}`)
    check(checksum === checksumOf(sector.subarray(LABEL_CHECKED_FROM)), 'its checksum is wrong')
    check(headerOffset! >= 32 && headerOffset! + AREAS_AT <= SECTOR_BYTES, `the header is at byte ${headerOffset}`)
    return volumeIn(volume, sector.subarray(headerOffset))
  }
  return undefined
}

function labelOf(sector: Uint8Array) {
  return textOf(sector.subarray(0, LABEL_ID.length)) === LABEL_ID ? label.parse(sector) : undefined
}

async function volumeIn(volume: BlockSource, input: Uint8Array): Promise<PhysicalVolume> {
  const uuid = dashed(textOf(header.parse(input).uuid))
  let at = AREAS_AT
  const listed = (): { offset: number; bytes: number }[] => {
    const found = []
    for (; at + AREA_BYTES <= input.length; at += AREA_BYTES) {
      const one = area.parse(input.subarray(at))
      if (one.offset === 0) break
      found.push(one)
    }
    at += AREA_BYTES
    return found
  }
  listed() // of data: the description says it as well
  let description: Section | undefined
  let problem: ServiceError | undefined
  for (const { offset } of listed()) {
    try {
      const found = await descriptionIn(volume, offset)
      if (found && (!description || sequenceOf(found) > sequenceOf(description))) description = found
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      problem ??= error
    }
  }
  return { uuid, description, problem: description ? undefined : problem }
}

/** The text that holds now, of an area; undefined where it has none. The area is a ring: the text may go on behind the header. */
async function descriptionIn(volume: BlockSource, offset: number): Promise<Section | undefined> {
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', `the metadata area at byte ${offset}: ${problem}`, { offset })
  }
  check(offset % SECTOR_BYTES === 0 && offset + AREA_HEADER_BYTES <= volume.size, 'it lies outside the volume')
  const input = await volume.read(offset, AREA_HEADER_BYTES)
  const raw = areaHeader.parse(input)
  check(textOf(raw.magic) === AREA_MAGIC && raw.version === 1, 'it has another magic or version')
  check(raw.checksum === checksumOf(input.subarray(4)), 'its checksum is wrong')
  check(raw.start === offset && raw.bytes <= volume.size - offset, `it is of ${raw.bytes} bytes at ${raw.start}`)
  if (raw.textOffset === 0 || raw.textBytes === 0 || (raw.flags & FLAG_IGNORED) !== 0) return undefined
  const { textOffset, textBytes } = raw
  check(textBytes <= MAX_TEXT_BYTES && textBytes <= raw.bytes - AREA_HEADER_BYTES, `its text has ${textBytes} bytes`)
  check(textOffset >= AREA_HEADER_BYTES && textOffset < raw.bytes, `its text is at ${textOffset}`)
  const first = Math.min(textBytes, raw.bytes - textOffset)
  const text = Buffer.concat([
    await volume.read(offset + textOffset, first),
    await volume.read(offset + AREA_HEADER_BYTES, textBytes - first),
  ])
  if (checksumOf(text) !== raw.textChecksum)
    throw refuse('damaged', `the checksum of the text in the area at byte ${offset} is wrong`)
  return parseConfig(text.toString('utf8'))
}

/** Of the volume group; each change has the next one. */
export function sequenceOf(description: Section): number {
  for (const group of description.values()) {
    const number = group instanceof Map ? group.get('seqno') : undefined
    if (typeof number === 'number') return number
  }
  return -1
}

/** CRC-32 without its inversions, beginning with a number of LVM's. Source: LVM2 lib/misc/crc.h. */
const checksumOf = (input: Uint8Array): number => ~crc32(input, ~CHECKSUM_BEGIN >>> 0) >>> 0
const textOf = (input: Uint8Array): string => Buffer.from(input).toString('latin1')
const dashed = (uuid: string): string =>
  [...uuid.matchAll(/^(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})$/gs)][0]?.slice(1).join('-') ?? uuid
