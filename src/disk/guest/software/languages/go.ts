import { MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import type { Package } from '../package.ts'
import type { Section } from './elf-sections.ts'
import { languagePackage, refuse } from './language-reader.ts'

/**
 * `.go.buildinfo`: 14 bytes of magic, the size of a pointer, flags; from 32 on two strings, or (before Go 1.18) from 16 on pointers to them.
 * Source: Go, debug/buildinfo, "Build info blob".
 */
const MAGIC = '\xff Go buildinf:'
const HEAD_BYTES = 32
const INLINE_FLAG = 2
const BIG_ENDIAN_FLAG = 1
const MAX_TEXT_BYTES = 4 * MiB
const MAX_MODULES = 100_000
/** On each side of the list: 16 bytes by which the runtime finds it. */
const MARK_BYTES = 16

/** The modules of a program, and the standard library as `stdlib`: so the Go vulnerability database calls it. */
export async function goPackages(
  file: BlockSource,
  info: Section,
  sections: readonly Section[],
  path: string,
): Promise<Package[]> {
  if (info.bytes < HEAD_BYTES) throw refuse(`its .go.buildinfo has ${info.bytes} bytes`)
  const head = Buffer.from(await file.read(info.offset, HEAD_BYTES))
  if (head.toString('latin1', 0, 14) !== MAGIC) throw refuse('its .go.buildinfo has another magic')
  const [version, modules] =
    (head[15]! & INLINE_FLAG) !== 0 ? await inlineTexts(file, info) : await pointedTexts(file, head, sections)
  const found: (Package | undefined)[] = [languagePackage('golang', 'stdlib', version.replace(/^go/, '').split(' ')[0], path)]
  for (const line of withoutMarks(modules).split('\n')) {
    const [what, name, of] = line.split('\t')
    if (what === '=>') found.pop() // it is in the place of the one before
    if (what === 'mod' || what === 'dep' || what === '=>') found.push(languagePackage('golang', name, of || '(devel)', path))
    if (found.length > MAX_MODULES) throw refuse(`it says that it has more than ${MAX_MODULES} modules`)
  }
  return found.filter((each) => each !== undefined)
}

const withoutMarks = (text: string): string =>
  text.length > 2 * MARK_BYTES && text.at(-MARK_BYTES - 1) === '\n' ? text.slice(MARK_BYTES, -MARK_BYTES) : text

async function inlineTexts(file: BlockSource, info: Section): Promise<[version: string, modules: string]> {
  const bytes = Buffer.from(await file.read(info.offset, Math.min(info.bytes, MAX_TEXT_BYTES)))
  const version = textAt(bytes, HEAD_BYTES)
  return [version.text, textAt(bytes, version.end).text]
}

/** Its length in 7 bits a byte, then that many bytes. */
function textAt(bytes: Buffer, start: number): { text: string; end: number } {
  let [length, at] = [0, start]
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at]
    if (byte === undefined || shift > 28) throw refuse('its .go.buildinfo is cut off')
    at += 1
    length += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) break
  }
  if (at + length > bytes.length) throw refuse(`its .go.buildinfo has a text of ${length} bytes that is not within it`)
  return { text: bytes.toString('latin1', at, at + length), end: at + length }
}

async function pointedTexts(file: BlockSource, head: Buffer, sections: readonly Section[]): Promise<[string, string]> {
  const [wordBytes, isLittle] = [head[14]!, (head[15]! & BIG_ENDIAN_FLAG) === 0]
  if (wordBytes !== 4 && wordBytes !== 8) throw refuse(`its .go.buildinfo says that a pointer has ${wordBytes} bytes`)
  const word = (bytes: Uint8Array, at: number): number => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return wordBytes === 8 ? Number(view.getBigUint64(at, isLittle)) : view.getUint32(at, isLittle)
  }
  const inMemory = (address: number, count: number): Promise<Uint8Array> => {
    const holder = sections.find(
      (each) => each.address !== 0 && address >= each.address && address + count <= each.address + each.bytes,
    )
    if (!holder) throw refuse(`its .go.buildinfo points at ${address}, where nothing is`)
    return file.read(holder.offset + address - holder.address, count)
  }
  const text = async (pointer: number): Promise<string> => {
    if (pointer === 0) return ''
    const pair = await inMemory(pointer, 2 * wordBytes)
    const [address, length] = [word(pair, 0), word(pair, wordBytes)]
    if (length > MAX_TEXT_BYTES) throw refuse(`its .go.buildinfo has a text of ${length} bytes`)
    return length === 0 ? '' : Buffer.from(await inMemory(address, length)).toString('latin1')
  }
  return [await text(word(head, 16)), await text(word(head, 16 + wordBytes))]
}
