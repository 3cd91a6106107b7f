import type { BlockSource, Extent } from '../../block/block-source.ts'
import { mappedDisk, type Segment } from '../../block/mapped-disk.ts'
import { merged } from '../../block/run-merger.ts'
import type { OpenOptions } from '../format-driver.ts'
import { GrainCaches, GrainMap, readDirectory } from './grains.ts'
import { type PlacedExtent, readLayout } from './layout.ts'

/** An extent, and the map of it where it is sparse. */
interface MappedExtent {
  readonly extent: PlacedExtent
  readonly grains?: GrainMap
}

/**
 * The guest's disk in a VMDK file, or in a descriptor file and its parts. Holds at most 8 MiB of tables and grains, and the grain
 * directories: 128 KiB for each TiB with grains of 64 KiB, never more than 8 MiB.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function openDisk(file: BlockSource, given?: OpenOptions): Promise<BlockSource> {
  const layout = await readLayout(file, given)
  const caches = new GrainCaches()
  const mapped: MappedExtent[] = []
  for (const [number, extent] of layout.extents.entries()) {
    if (extent.kind !== 'sparse') mapped.push({ extent })
    else {
      const directory = await readDirectory(extent.file, extent.header, extent.header.directoryOffset)
      mapped.push({ extent, grains: new GrainMap(extent.file, extent.header, directory, number, caches) })
    }
  }
  const size = layout.virtualBytes
  const parent = given?.parent
  const disk = mappedDisk(file, { size, segments: (offset, length) => segmentsOf(mapped, offset, length), parent })
  const isFlat = layout.extents.some(({ kind }) => kind === 'flat')
  return {
    ...disk,
    extents: isFlat ? (offset, length) => merged(extentsOf(mapped, offset, length)) : disk.extents,
    async close() {
      await Promise.all([disk.close(), ...[...(given?.parts?.values() ?? [])].map((part) => part.close())])
    },
  }
}

async function* segmentsOf(mapped: readonly MappedExtent[], offset: number, length: number): AsyncGenerator<Segment> {
  const end = offset + length
  for (let index = lastAt(mapped, offset), at = offset; at < end; index += 1) {
    const { extent, grains } = mapped[index]!
    const { start } = extent
    const stop = Math.min(end, start + extent.length)
    if (grains) {
      for await (const segment of grains.segments(at - start, stop - at)) {
        yield start === 0 ? segment : { ...segment, offset: segment.offset + start }
      }
    } else if (extent.kind === 'flat') {
      const { file, hostOffset } = extent
      yield { kind: 'data', offset: at, length: stop - at, hostOffset: hostOffset + at - start, file }
    } else yield { kind: 'zero', offset: at, length: stop - at }
    at = stop
  }
}

/** The last extent that does not begin after `offset`. */
function lastAt(mapped: readonly MappedExtent[], offset: number): number {
  let [low, high] = [0, mapped.length]
  while (high - low > 1) {
    const middle = (low + high) >>> 1
    if (mapped[middle]!.extent.start <= offset) low = middle
    else high = middle
  }
  return low
}

/** Of a disk with flat extents, which has no parent: the holes of its files are its holes. */
async function* extentsOf(mapped: readonly MappedExtent[], offset: number, length: number): AsyncGenerator<Extent> {
  for await (const segment of segmentsOf(mapped, offset, length)) {
    if (segment.kind !== 'data' || !segment.file) {
      yield { kind: segment.kind === 'packed' ? 'data' : segment.kind, offset: segment.offset, length: segment.length }
      continue
    }
    for await (const run of segment.file.extents(segment.hostOffset, segment.length)) {
      yield { ...run, offset: run.offset - segment.hostOffset + segment.offset }
    }
  }
}
