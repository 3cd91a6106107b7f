import type { Piece } from '../../disk/block/memory-source.ts'
import type { ImageDisk } from './image-disk.ts'

/** A stretch of the target that has to become what the image and the patches say. */
export interface Stretch {
  readonly offset: number
  readonly length: number
}

/** What of the patches lies beyond the image, in stretches of at most `maxBytes`. */
export function stretchesBeyond(diskBytes: number, patches: readonly Piece[], maxBytes: number): readonly Stretch[] {
  return patches.flatMap(({ offset, bytes }) => {
    const stretches: Stretch[] = []
    const end = offset + bytes.length
    for (let at = Math.max(offset, diskBytes); at < end; at += maxBytes) {
      stretches.push({ offset: at, length: Math.min(maxBytes, end - at) })
    }
    return stretches
  })
}

/**
 * The disk with other bytes in some places, some of them beyond its end. A stretch that a patch touches is known only by reading it.
 * @param patches not overlapping, a few; those beyond the end are read one at a time
 */
export function patchedDisk(disk: ImageDisk, patches: readonly Piece[]): ImageDisk {
  const touches = (offset: number, length: number) =>
    patches.filter((patch) => patch.offset < offset + length && patch.offset + patch.bytes.length > offset)
  const { size, chunkBytes } = disk
  return {
    ...disk,
    async read(offset, length) {
      const within = Math.max(0, Math.min(length, size - offset))
      const own = within > 0 ? await disk.read(offset, within) : new Uint8Array(0)
      const touching = touches(offset, length)
      if (touching.length === 0) return own
      const bytes = new Uint8Array(length)
      bytes.set(own)
      for (const { offset: start, bytes: patch } of touching) {
        const from = Math.max(offset, start)
        const to = Math.min(offset + length, start + patch.length)
        bytes.set(patch.subarray(from - start, to - start), from - offset)
      }
      return bytes
    },
    async wanted(offset, length) {
      if (offset >= size) return ['unread']
      const wanted = await disk.wanted(offset, length)
      return wanted.map((one, index) => (touches(offset + index * chunkBytes, chunkBytes).length > 0 ? 'unread' : one))
    },
  }
}
