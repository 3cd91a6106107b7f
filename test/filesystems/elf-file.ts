/** A 64-bit little-endian ELF file with these sections alone, at addresses from 0x400000 on. */
export function elfOf(sections: Readonly<Record<string, Uint8Array>>): Buffer {
  const names = ['', ...Object.keys(sections), '.shstrtab']
  const nameTable = Buffer.from(`${names.join('\0')}\0`, 'latin1')
  const contents = [new Uint8Array(), ...Object.values(sections), nameTable]
  const parts: Buffer[] = [Buffer.alloc(64)]
  const table: Buffer[] = []
  let at = 64
  for (const [index, bytes] of contents.entries()) {
    const entry = Buffer.alloc(64)
    if (index > 0) {
      entry.writeUInt32LE(nameTable.indexOf(`\0${names[index]}\0`) + 1, 0)
      entry.writeUInt32LE(1, 4)
      entry.writeBigUInt64LE(BigInt(0x400000 + at), 16)
      entry.writeBigUInt64LE(BigInt(at), 24)
      entry.writeBigUInt64LE(BigInt(bytes.length), 32)
    }
    table.push(entry)
    parts.push(Buffer.from(bytes))
    at += bytes.length
  }
  const head = parts[0]!
  head.write('\x7fELF\x02\x01\x01', 'latin1')
  head.writeBigUInt64LE(BigInt(at), 40)
  head.writeUInt16LE(64, 58)
  head.writeUInt16LE(contents.length, 60)
  head.writeUInt16LE(contents.length - 1, 62)
  return Buffer.concat([...parts, ...table])
}

const sizeOf = (text: string): number[] => {
  const bytes: number[] = []
  let left = text.length
  for (; left >= 0x80; left >>>= 7) bytes.push((left & 0x7f) | 0x80)
  return [...bytes, left]
}

/** What the linker of Go writes from 1.18 on. */
export function goInfo(version: string, modules: string): Buffer {
  const head = Buffer.alloc(32)
  head.write('\xff Go buildinf:\x08\x02', 'latin1')
  const marked = `${'0'.repeat(16)}${modules}${'1'.repeat(16)}`
  const texts = [version, marked].flatMap((text) => [Buffer.from(sizeOf(text)), Buffer.from(text, 'latin1')])
  return Buffer.concat([head, ...texts])
}
