import type { FormatDriver } from '../format-driver.ts'

/** The file is the disk. Nothing is padded: bytes that came in go out, also where the size is no multiple of a sector. */
export const raw: FormatDriver = {
  name: 'raw',
  open: async (file) => file,
  audit: async (file) =>
    file.size % 512 === 0
      ? []
      : [`the size, ${file.size} bytes, is not a multiple of 512: machines see the last sector filled up with zeros`],
  writers: [{ subformat: 'plain', wrap: async (disk) => disk }],
}
