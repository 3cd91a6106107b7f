import type { BlockSource } from '../../block/block-source.ts'

/** A program for UEFI firmware. Source: Microsoft PE/COFF specification; UEFI 2.10, section 2.1.1. */
export interface EfiProgram {
  /** In the words of Glance's `architecture`; null where it is another. */
  readonly architecture: string | null
  /** A signature is attached; whose it is was not looked at. */
  readonly isSigned: boolean
  readonly sections: readonly EfiSection[]
}
export interface EfiSection {
  readonly name: string
  /** In the file, bytes; inside it. */
  readonly offset: number
  readonly bytes: number
}

const machines: Readonly<Record<number, string>> = {
  332: 'i686',
  450: 'armv7l',
  34404: 'x86_64',
  43620: 'aarch64',
  20580: 'riscv64',
  25188: 'loongarch64',
}
const HEAD_BYTES = 16 * 1024 // the headers of every loader end far before
const MAX_SECTIONS = 96 // PE/COFF: "the Windows loader limits the number of sections to 96"

/** Undefined where it is none. Reads 16 KiB. */
export async function readEfiProgram(file: BlockSource): Promise<EfiProgram | undefined> {
  const head = Buffer.from(await file.read(0, Math.min(HEAD_BYTES, file.size)))
  if (head.length < 0x40 || head.toString('latin1', 0, 2) !== 'MZ') return undefined
  const at = head.readUInt32LE(0x3c)
  if (at + 24 > head.length || head.toString('latin1', at, at + 4) !== 'PE\0\0') return undefined
  const optional = at + 24
  const table = optional + head.readUInt16LE(at + 20)
  const sections: EfiSection[] = []
  for (let index = 0; index < Math.min(head.readUInt16LE(at + 6), MAX_SECTIONS); index += 1) {
    const entry = table + index * 40
    if (entry + 40 > head.length) break
    const [virtual, raw, offset] = [head.readUInt32LE(entry + 8), head.readUInt32LE(entry + 16), head.readUInt32LE(entry + 20)]
    const bytes = virtual === 0 ? raw : Math.min(raw, virtual)
    if (offset + bytes <= file.size)
      sections.push({ name: head.toString('latin1', entry, entry + 8).replace(/\0.*$/s, ''), offset, bytes })
  }
  return { architecture: machines[head.readUInt16LE(at + 4)] ?? null, isSigned: hasSignature(head, optional), sections }
}

/** The fifth data directory: the attribute certificates. */
function hasSignature(head: Buffer, optional: number): boolean {
  if (optional + 2 > head.length) return false
  const directory = optional + (head.readUInt16LE(optional) === 0x20b ? 112 : 96) + 4 * 8
  return directory + 8 <= head.length && head.readUInt32LE(directory + 4) > 0
}

/** The text of a section, at most `maxBytes`; undefined where it has none of that name. */
export async function sectionText(
  file: BlockSource,
  { sections }: EfiProgram,
  name: string,
  maxBytes: number,
): Promise<string | undefined> {
  const section = sections.find((each) => each.name === name)
  if (!section) return undefined
  const bytes = Buffer.from(await file.read(section.offset, Math.min(section.bytes, maxBytes)))
  return bytes.toString('utf8').replace(/\0.*$/s, '')
}
