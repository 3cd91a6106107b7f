import { ServiceError } from '../../../base/errors.ts'
import type { FormatDriver, OpenOptions } from '../format-driver.ts'

/** The file is the disk. Nothing is padded: bytes that came in go out, also where the size is no multiple of a sector. */
export const raw: FormatDriver = {
  name: 'raw',
  async open(file, given) {
    assertAlone(given)
    return file
  },
  async audit(file, given) {
    assertAlone(given)
    return file.size % 512 === 0
      ? []
      : [`the size, ${file.size} bytes, is not a multiple of 512: machines see the last sector filled up with zeros`]
  },
  writers: [{ subformat: 'plain', wrap: async (disk) => disk }],
}

/** Parts and snapshots are refused for every format that has none: `openImage`. */
function assertAlone({ parent }: OpenOptions = {}): void {
  if (!parent) return
  throw new ServiceError('invalid-image', 'raw: a parent is given, but such a file is the whole disk', {
    format: 'raw',
    reason: 'malformed',
  })
}
