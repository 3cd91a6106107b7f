import { ServiceError } from '../../../../base/errors.ts'
import { bytes, struct, u8, u16le, u32le } from '../../../../base/struct.ts'
import { KiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { nameOfUnits } from '../file-name.ts'

/** Primary or supplementary volume descriptor. Source: ECMA-119 (ISO 9660), sections 8.4 and 8.5. Numbers are there in both orders: the little-endian is read. */
const record = struct('ISO 9660 volume descriptor', {
  type: u8(0),
  id: bytes(1, 5),
  version: u8(6),
  label: bytes(40, 32),
  blocks: u32le(80),
  escapes: bytes(88, 32),
  blockBytes: u16le(128),
  rootBlock: u32le(158), // of the record at 156
  rootBytes: u32le(166),
  created: bytes(813, 17),
  modified: bytes(830, 17),
})
export const SECTOR_BYTES = 2 * KiB
const FIRST_SECTOR = 16
const MAX_DESCRIPTORS = 84 // the kernel looks as far as sector 100
const TYPE = { boot: 0, primary: 1, supplementary: 2, end: 255 } as const
/** Source: Joliet Specification, "SVD Escape Sequences": UCS-2 levels 1 to 3. */
const JOLIET: readonly string[] = ['%/@', '%/C', '%/E']
/** What follows the descriptors of a disc that is both. Source: ECMA-167, part 2, section 9, and part 3, section 9.1. */
const UDF_IDS: readonly string[] = ['BEA01', 'NSR02', 'NSR03']
const BOOT_ID = 'EL TORITO SPECIFICATION'
const BOOT_CATALOG_AT = 71

/** A tree of directories: the primary one, or that of Joliet. */
export interface Tree {
  readonly blockBytes: number
  /** Blocks of the volume. */
  readonly blocks: number
  /** Bytes from the start of the volume. */
  readonly rootOffset: number
  readonly isJoliet: boolean
}

export interface Descriptors {
  readonly primary: Tree
  readonly joliet: Tree | undefined
  readonly label: string
  /** As blkid makes it of a time. */
  readonly uuid: string
  /** Sector of the boot catalogue. */
  readonly bootCatalog: number | undefined
  /** The disc is one of UDF as well, which may have other files. */
  readonly hasUdf: boolean
}

export type Refusal = 'malformed' | 'truncated' | 'unknown-feature'

export const refuse = (reason: Refusal, problem: string, details: Record<string, number> = {}): ServiceError =>
  new ServiceError(reason === 'unknown-feature' ? 'unsupported' : 'invalid-image', `ISO 9660: ${problem}`, {
    fileSystem: 'iso9660',
    reason,
    ...details,
  })

/** @returns undefined where there is no primary descriptor @throws ServiceError `invalid-image` */
export async function readDescriptors(volume: BlockSource): Promise<Descriptors | undefined> {
  let primary: ReturnType<typeof record.parse> | undefined
  let joliet: ReturnType<typeof record.parse> | undefined
  let bootCatalog: number | undefined
  let hasUdf = false
  for (let index = 0; index < MAX_DESCRIPTORS; index += 1) {
    const offset = (FIRST_SECTOR + index) * SECTOR_BYTES
    if (offset + SECTOR_BYTES > volume.size) break
    const sector = await volume.read(offset, SECTOR_BYTES)
    const id = Buffer.from(sector.subarray(1, 6)).toString('latin1')
    if (id !== 'CD001' && !UDF_IDS.includes(id)) break
    hasUdf ||= UDF_IDS.indexOf(id) > 0
    const type = id === 'CD001' ? sector[0] : TYPE.end
    if (type === TYPE.primary) primary ??= record.parse(sector)
    else if (type === TYPE.boot && textOf(sector.subarray(7, 39)) === BOOT_ID) {
      bootCatalog ??= new DataView(sector.buffer, sector.byteOffset).getUint32(BOOT_CATALOG_AT, true)
    } else if (type === TYPE.supplementary) {
      const found = record.parse(sector)
      if (JOLIET.includes(textOf(found.escapes))) joliet ??= found
    }
  }
  if (!primary) return undefined
  return {
    primary: treeOf(primary, false, volume.size),
    joliet: joliet && treeOf(joliet, true, volume.size),
    label: labelOf(primary.label, joliet?.label),
    uuid: uuidOf(primary.modified) ?? uuidOf(primary.created) ?? '',
    bootCatalog,
    hasUdf,
  }
}

function treeOf(raw: ReturnType<typeof record.parse>, isJoliet: boolean, volumeBytes: number): Tree {
  const { blockBytes, blocks, rootBlock } = raw
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', `the ${isJoliet ? 'supplementary' : 'primary'} volume descriptor: ${problem}`)
  }
  check([512, 1024, 2048].includes(blockBytes), `the logical block size is ${blockBytes}; it is 512, 1024 or 2048`)
  check(blocks > 0, 'the volume space size is 0')
  const rootOffset = rootBlock * blockBytes
  check(rootBlock > 0 && rootOffset < volumeBytes, `the root is at block ${rootBlock}`)
  return { blockBytes, blocks, rootOffset, isJoliet }
}

const textOf = (input: Uint8Array): string =>
  Buffer.from(input)
    .toString('latin1')
    .replace(/[\0 ]+$/, '')

/** That of Joliet has sixteen characters, of any kind; what comes after them is in the primary one, where that begins alike. As blkid joins them. */
function labelOf(primary: Uint8Array, joliet: Uint8Array | undefined): string {
  const plain = Buffer.from(primary).toString('latin1')
  if (!joliet) return plain.trimEnd().replace(/\0+$/, '')
  const wide = textOfUcs2(joliet)
  const isSame = Array.from(
    wide,
    (each, at) => each === plain[at] || each.toUpperCase() === plain[at] || plain[at] === '_',
  ).every(Boolean)
  return (isSame ? wide + plain.slice(wide.length) : plain).replace(/[\0 ]+$/, '')
}

export function textOfUcs2(input: Uint8Array): string {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength)
  return nameOfUnits(Uint16Array.from({ length: input.length >>> 1 }, (_, at) => view.getUint16(at * 2)))
}

/** Digits of year, month, day, hour, minute, second, hundredths. */
function uuidOf(time: Uint8Array): string | undefined {
  const digits = Buffer.from(time.subarray(0, 16)).toString('latin1')
  if (!/^\d{16}$/.test(digits) || /^0+$/.test(digits)) return undefined
  return [digits.slice(0, 4), ...[4, 6, 8, 10, 12, 14].map((at) => digits.slice(at, at + 2))].join('-')
}
