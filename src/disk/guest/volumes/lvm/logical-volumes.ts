import { ServiceError } from '../../../../base/errors.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { joined } from '../../../block/joined.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import type { Section, Value } from './config.ts'
import { type PhysicalVolume, sequenceOf } from './metadata.ts'
import { refuse } from './refuse.ts'

/** Volume groups by their descriptions. Source: LVM2 lib/format_text/export.c, which writes them; lvmsystemid(7) and lvm(8). Sizes in it are of sectors, or of extents. */
const SECTOR_BYTES = 512
const MAX_VOLUMES = 1024
const MAX_SEGMENTS = 65_536
const MAX_STRIPES = 128 // LVM's own

/** A physical volume that was found. */
export interface FoundVolume {
  readonly physical: PhysicalVolume
  readonly source: BlockSource
}

export interface LogicalVolume {
  /** `group/volume`. */
  readonly name: string
  readonly uuid: string
  readonly bytes: number
  /** Its bytes, or why they cannot be read. Closing it closes nothing. */
  readonly source: BlockSource | ServiceError
}

/** A stretch of a volume: so many bytes on each of so many stripes, in turns of `chunkBytes`. */
interface Stretch {
  readonly start: number
  readonly end: number
  readonly chunkBytes: number
  /** Null: zeros. */
  readonly stripes: readonly { readonly source: BlockSource; readonly offset: number }[] | null
}

/**
 * The logical volumes that are seen when the groups of these physical volumes are activated, in the order of their descriptions; what
 * lies on devices that are not there, or is made in a way that is not read here, says so. A group whose description cannot be read
 * is an error of its physical volumes.
 */
export function logicalVolumesOf(found: readonly FoundVolume[]): LogicalVolume[] {
  const newest = new Map<string, { readonly name: string; readonly group: Section; readonly sequence: number }>()
  for (const { physical } of found) {
    const [name, group] = physical.description ? groupIn(physical.description) : []
    if (name === undefined || !group) continue
    const id = text(group, 'id')
    const sequence = sequenceOf(physical.description!)
    if ((newest.get(id)?.sequence ?? -1) < sequence) newest.set(id, { name, group, sequence })
  }
  return [...newest.values()].flatMap(({ name, group }) => volumesIn(name, group, found))
}

/** The one section of a description that is a volume group. */
export function groupIn(description: Section): [name: string, group: Section] | [] {
  for (const [name, value] of description) if (isSection(value) && value.has('seqno')) return [name, value]
  return []
}

function volumesIn(groupName: string, group: Section, found: readonly FoundVolume[]): LogicalVolume[] {
  const volumes = section(group, 'logical_volumes') ?? new Map()
  const copied = snapshotParts(volumes)
  const made: LogicalVolume[] = []
  for (const [name, volume] of volumes) {
    if (!isSection(volume) || !words(volume, 'status').includes('VISIBLE')) continue
    if (made.length >= MAX_VOLUMES) break
    const full = `${groupName}/${name}`
    let bytes = 0
    let source: BlockSource | ServiceError
    try {
      const stretches = stretchesOf(volume, group, found)
      bytes = stretches.at(-1)?.end ?? 0
      const role = copied.get(name)
      if (role) throw refuse('unknown-feature', `it is ${role}, which is not read here`)
      source = sourceOf(stretches)
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      source = new ServiceError(error.code, error.message.replace(/^LVM2: /, `LVM2: ${full}: `), error.details)
    }
    made.push({ name: full, uuid: text(volume, 'id'), bytes, source })
  }
  return made
}

/** Snapshots are written apart from their volumes: the one that has the differences, and one that they are being put back into, are not what they seem. */
function snapshotParts(volumes: Section): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const volume of volumes.values()) {
    const segment = isSection(volume) ? section(volume, 'segment1') : undefined
    if (!segment || text(segment, 'type') !== 'snapshot') continue
    found.set(text(segment, 'cow_store'), 'a snapshot')
    if (segment.has('merging_store')) {
      found.set(text(segment, 'merging_store'), 'a snapshot')
      found.set(text(segment, 'origin'), 'a volume into which a snapshot is being merged')
    }
  }
  return found
}

function stretchesOf(volume: Section, group: Section, found: readonly FoundVolume[]): Stretch[] {
  const extentBytes = count(group, 'extent_size') * SECTOR_BYTES
  const segments = count(volume, 'segment_count')
  check(extentBytes > 0 && extentBytes <= 2 ** 44, `extent_size is ${extentBytes / SECTOR_BYTES}`)
  check(segments <= MAX_SEGMENTS, `segment_count is ${segments}; at most ${MAX_SEGMENTS} are read`)
  const stretches: Stretch[] = []
  let end = 0
  for (let index = 1; index <= segments; index += 1) {
    const segment = section(volume, `segment${index}`)
    if (!segment) throw refuse('malformed', `there is no segment${index}, of ${segments}`)
    const start = count(segment, 'start_extent') * extentBytes
    const bytes = count(segment, 'extent_count') * extentBytes
    check(start === end && bytes > 0 && Number.isSafeInteger(start + bytes), `segment${index} is of ${bytes} bytes at ${start}`)
    end = start + bytes
    stretches.push({ start, end, ...placesOf(segment, bytes, extentBytes, group, found) })
  }
  return stretches
}

function placesOf(
  segment: Section,
  bytes: number,
  extentBytes: number,
  group: Section,
  found: readonly FoundVolume[],
): Pick<Stretch, 'chunkBytes' | 'stripes'> {
  const type = text(segment, 'type')
  if (type === 'zero') return { chunkBytes: bytes, stripes: null }
  if (type !== 'striped' && type !== 'linear')
    throw refuse('unknown-feature', `it is of type ${type}, which is not read here`, { type })
  const stripeCount = count(segment, 'stripe_count')
  const stripes = segment.get('stripes')
  check(stripeCount >= 1 && stripeCount <= MAX_STRIPES, `stripe_count is ${stripeCount}; it is 1 to ${MAX_STRIPES}`)
  if (!Array.isArray(stripes) || stripes.length !== stripeCount * 2)
    throw refuse('malformed', 'stripes is not what stripe_count says')
  const perStripe = bytes / stripeCount
  const chunkBytes = stripeCount === 1 ? bytes : count(segment, 'stripe_size') * SECTOR_BYTES
  check(
    perStripe % extentBytes === 0 && chunkBytes > 0 && perStripe % chunkBytes === 0,
    `${bytes} bytes on ${stripeCount} stripes, of ${chunkBytes} each turn`,
  )
  const places = Array.from({ length: stripeCount }, (_, index) => {
    const [name, extent] = [stripes[index * 2], stripes[index * 2 + 1]]
    if (typeof name !== 'string' || typeof extent !== 'number')
      throw refuse('malformed', 'stripes are names and numbers of extents')
    return placeOf(name, extent, perStripe, extentBytes, group, found)
  })
  return { chunkBytes, stripes: places }
}

/** Where an extent of a physical volume begins. */
function placeOf(
  name: string,
  extent: number,
  bytes: number,
  extentBytes: number,
  group: Section,
  found: readonly FoundVolume[],
): { source: BlockSource; offset: number } {
  const physical = section(section(group, 'physical_volumes') ?? new Map(), name)
  if (!physical) throw refuse('unknown-feature', `it lies on ${name}, which is no physical volume`)
  const uuid = text(physical, 'id')
  const source = found.find((each) => each.physical.uuid === uuid)?.source
  if (!source)
    throw refuse('missing-devices', `it lies on the physical volume ${uuid}, which is missing here`, { missing: 1, uuid })
  const offset = count(physical, 'pe_start') * SECTOR_BYTES + extent * extentBytes
  check(
    Number.isSafeInteger(extent) && extent >= 0 && extent * extentBytes + bytes <= count(physical, 'pe_count') * extentBytes,
    `extents from ${extent} on lie outside ${name}`,
  )
  if (!(offset + bytes <= source.size))
    throw refuse('truncated', `it goes on beyond the end of the physical volume ${uuid}`, { offset })
  return { source, offset }
}

function sourceOf(stretches: readonly Stretch[]): BlockSource {
  const size = stretches.at(-1)?.end ?? 0
  function* segments(offset: number, length: number): Generator<Segment> {
    const end = offset + length
    for (let index = stretchAt(stretches, offset), at = offset; at < end; index += 1) {
      const stretch = stretches[index]!
      for (const stop = Math.min(end, stretch.end); at < stop; ) {
        const segment = segmentAt(stretch, at, stop)
        yield segment
        at += segment.length
      }
    }
  }
  const nothing: BlockSource = { size: 0, read: async () => new Uint8Array(0), async *extents() {}, async close() {} }
  const { close: _, ...disk } = mappedDisk(nothing, { size, segments: (offset, length) => joined(segments(offset, length)) })
  return { ...disk, close: async () => {} }
}

/** Turns go round: each stripe has a chunk, then each its next. Source: Linux Documentation/admin-guide/device-mapper/striped.rst. */
function segmentAt({ start, chunkBytes, stripes }: Stretch, offset: number, stop: number): Segment {
  if (!stripes) return { kind: 'zero', offset, length: stop - offset }
  const inside = offset - start
  const chunk = Math.floor(inside / chunkBytes)
  const inChunk = inside % chunkBytes
  const { source, offset: begin } = stripes[chunk % stripes.length]!
  const hostOffset = begin + Math.floor(chunk / stripes.length) * chunkBytes + inChunk
  return { kind: 'data', offset, length: Math.min(stop - offset, chunkBytes - inChunk), hostOffset, file: source }
}

function stretchAt(stretches: readonly Stretch[], offset: number): number {
  let [low, high] = [0, stretches.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (stretches[middle]!.end > offset) high = middle
    else low = middle + 1
  }
  return low
}

function check(holds: boolean, problem: string): void {
  if (!holds) throw refuse('malformed', problem)
}

const isSection = (value: Value | undefined): value is Section => value instanceof Map
const section = (within: Section, name: string): Section | undefined => {
  const value = within.get(name)
  return isSection(value) ? value : undefined
}
const text = (within: Section, name: string): string => {
  const value = within.get(name)
  return typeof value === 'string' ? value : ''
}
const words = (within: Section, name: string): readonly (string | number)[] => {
  const value = within.get(name)
  return Array.isArray(value) ? value : []
}
/** @throws ServiceError `invalid-image` where it is no whole number from 0 on */
function count(within: Section, name: string): number {
  const value = within.get(name)
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw refuse('malformed', `${name} is not a count`)
  return value
}
