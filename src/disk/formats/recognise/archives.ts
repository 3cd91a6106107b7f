import { type Look, plainSignature, type Signature } from './recognition.ts'

/** Compression and archives: not a disk yet, but something that holds one. Nothing is unpacked to find out. */

const TAR_NAME_BYTES = 100
const isTar = (look: Look): boolean => look.has(257, 'ustar')
/** OVF says: "the descriptor shall be the first file" of an OVA. */
const isOva = (look: Look): boolean => isTar(look) && /\.ovf\0*$/i.test(look.latin1(0, TAR_NAME_BYTES))

export const archiveSignatures: readonly Signature[] = [
  {
    name: 'gzip',
    kind: 'wrapper',
    diskFormat: null,
    find: (look) => (look.has(0, [0x1f, 0x8b, 0x08]) && (look.byte(3) & 0xe0) === 0 ? 0 : undefined), // RFC 1952: reserved flags are zero
  },
  plainSignature('xz', 'wrapper', 0, '\xfd7zXZ\0'),
  plainSignature('zstd', 'wrapper', 0, [0x28, 0xb5, 0x2f, 0xfd]),
  {
    name: 'bzip2',
    kind: 'wrapper',
    diskFormat: null,
    find(look) {
      const level = look.byte(3)
      const isStart = look.has(0, 'BZh') && level >= 0x31 && level <= 0x39
      const isBlock = look.has(4, [0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) || look.has(4, [0x17, 0x72, 0x45, 0x38, 0x50, 0x90])
      return isStart && isBlock ? 0 : undefined
    },
  },
  plainSignature('lz4', 'wrapper', 0, [0x04, 0x22, 0x4d, 0x18]),
  plainSignature('lzip', 'wrapper', 0, 'LZIP\x01'),
  plainSignature('zip', 'wrapper', 0, 'PK\x03\x04', 'PK\x05\x06'),
  plainSignature('7z', 'wrapper', 0, '7z\xbc\xaf\x27\x1c'),
  { name: 'ova', kind: 'wrapper', diskFormat: null, find: (look) => (isOva(look) ? 257 : undefined) },
  { name: 'tar', kind: 'wrapper', diskFormat: null, find: (look) => (isTar(look) && !isOva(look) ? 257 : undefined) },
]
