/** The headers of a program for UEFI firmware, with these sections; it does not run. Source: Microsoft PE/COFF specification. */
export function peProgram({
  machine = 0x8664,
  sections = {},
  isSigned = false,
}: {
  readonly machine?: number
  readonly sections?: Readonly<Record<string, string | Uint8Array>>
  readonly isSigned?: boolean
} = {}): Uint8Array {
  const contents = Object.values(sections).map((content) => Buffer.from(content))
  const head = Buffer.alloc(1024)
  head.write('MZ')
  head.writeUInt32LE(0x80, 0x3c)
  head.write('PE\0\0', 0x80)
  head.writeUInt16LE(machine, 0x84)
  head.writeUInt16LE(contents.length, 0x86)
  head.writeUInt16LE(160, 0x94) // SizeOfOptionalHeader: six data directories
  head.writeUInt16LE(0x20b, 0x98)
  if (isSigned) head.writeUInt32LE(8, 0x98 + 112 + 4 * 8 + 4)
  let offset = head.length
  for (const [index, name] of Object.keys(sections).entries()) {
    const at = 0x98 + 160 + index * 40
    const { length } = contents[index]!
    head.write(name, at, 8)
    head.writeUInt32LE(length, at + 8)
    head.writeUInt32LE(length, at + 16)
    head.writeUInt32LE(offset, at + 20)
    offset += length
  }
  return Buffer.concat([head, ...contents])
}
