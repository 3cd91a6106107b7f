import { refuseArchive } from './archive.ts'

/** Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format", for large numbers. */
export const BLOCK_BYTES = 512

export const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)
export const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
export function withoutEnd(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

/** @param at of the header in the archive. @throws ServiceError `invalid-image`; `unsupported` for tar without "ustar" */
export function assertHeader(header: Uint8Array, at: number): void {
  const magic = latin1(header.subarray(257, 263))
  if (magic !== 'ustar\0' && magic !== 'ustar ')
    throw refuseArchive('tar', 'unsupported', `the header at byte ${at} has no magic "ustar"`, { offset: at })
  let sum = 8 * 0x20 // the field of the sum itself counts as spaces
  for (const [index, byte] of header.entries()) if (index < 148 || index >= 156) sum += byte
  if (readNumber(header.subarray(148, 156), at) !== sum)
    throw refuseArchive('tar', 'malformed', `the checksum of the header at byte ${at} is wrong`, { offset: at })
}

/** Octal digits with spaces around them, up to a NUL; or, with the highest bit set, a number of base 256, as GNU tar has it. */
export function readNumber(field: Uint8Array, at: number): number {
  const first = field[0] as number
  const bad = (problem: string) =>
    refuseArchive('tar', 'malformed', `a number in the header at byte ${at} ${problem}`, { offset: at })
  if (first >= 0x80) {
    if (first !== 0x80) throw bad(first >= 0xc0 ? 'is negative' : 'is 2^53 or more')
    let value = 0
    for (const byte of field.subarray(1)) {
      value = value * 256 + byte
      if (!Number.isSafeInteger(value)) throw bad('is 2^53 or more')
    }
    return value
  }
  const digits = /^ *([0-7]*) *$/.exec(latin1(withoutEnd(field)))?.[1]
  if (digits === undefined) throw bad('is not octal')
  return digits === '' ? 0 : Number.parseInt(digits, 8)
}

/** `prefix/name`. GNU tar's own magic has other things where the prefix would be. */
export function nameOf(header: Uint8Array): Uint8Array {
  const name = withoutEnd(header.subarray(0, 100))
  const prefix = header[262] === 0 ? withoutEnd(header.subarray(345, 500)) : new Uint8Array()
  return prefix.length > 0 ? Buffer.concat([prefix, Buffer.of(0x2f), name]) : name
}
