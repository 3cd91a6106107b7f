import { MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { mappedDisk, type Segment } from '../../../block/mapped-disk.ts'
import { bytesSource } from '../../../block/memory-source.ts'
import { type BootSector, refuse } from './boot-sector.ts'
import { unpackLznt1 } from './lznt1.ts'
import { ATTRIBUTE, type Attribute, type NonResidentAttribute } from './record.ts'
import { type Run, runAt, runsOf } from './runs.ts'

const LZNT1 = 1
const MAX_UNIT_BYTES = MiB // 64 KiB as Windows makes them

/** One attribute, whose runs may be in several records. */
export interface Stream {
  /** The part from cluster 0 on, or the value. */
  readonly first: Attribute
  /** Where each further part begins, ascending, and how it is read. */
  readonly others: readonly { readonly firstVcn: number; load(): Promise<NonResidentAttribute> }[]
}

/** What an attribute holds, unpacked. @throws ServiceError `unsupported` where it is encrypted or packed in an unknown way */
export function openStream(volume: BlockSource, boot: BootSector, stream: Stream): BlockSource {
  const { first } = stream
  if ((first.flags & ATTRIBUTE.encrypted) !== 0) throw refuse('encrypted', 'a file that is encrypted (EFS)')
  if (first.isResident) return bytesSource(first.value)
  if (first.firstVcn !== 0) throw refuse('malformed', `an attribute that begins with cluster ${first.firstVcn}`)
  const { dataBytes, writtenBytes, unitClusters } = first
  if (writtenBytes > dataBytes) throw refuse('malformed', `${writtenBytes} bytes were written, of ${dataBytes}`)
  const kind = first.flags & ATTRIBUTE.compression
  if (kind > LZNT1) throw refuse('unknown-feature', `a file that is compressed in way ${kind}`)
  const unitBytes = kind === LZNT1 ? unitClusters * boot.clusterBytes : 0
  if (unitBytes > MAX_UNIT_BYTES) throw refuse('malformed', `a compression unit of ${unitBytes} bytes`)
  const runs = runsBy(boot, stream, first)
  const place = { volume, boot, runs, unitBytes }
  const { close: _, ...disk } = mappedDisk(volume, {
    size: dataBytes,
    async *segments(offset, length) {
      const end = offset + length
      const written = Math.max(offset, Math.min(end, writtenBytes))
      if (written > offset) yield* unitBytes > 0 ? units(place, offset, written) : plain(place, offset, written)
      if (written < end) yield { kind: 'zero', offset: written, length: end - written }
    },
  })
  return { ...disk, close: async () => {} }
}

interface Place {
  readonly volume: BlockSource
  readonly boot: BootSector
  /** The run that has a cluster. */
  readonly runs: (vcn: number) => Promise<Run>
  readonly unitBytes: number
}

/** The parts' runs, of which the latest is kept. */
function runsBy(boot: BootSector, { others }: Stream, first: NonResidentAttribute): Place['runs'] {
  const ofFirst = runsOf(first, boot)
  let latest: { readonly index: number; readonly runs: Promise<Run[]> } = { index: -1, runs: Promise.resolve(ofFirst) }
  return async (vcn) => {
    let [low, high] = [0, others.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (others[middle]!.firstVcn <= vcn) low = middle + 1
      else high = middle
    }
    const index = low - 1
    if (index !== latest.index && index >= 0) latest = { index, runs: others[index]!.load().then((part) => runsOf(part, boot)) }
    const found = runAt(index < 0 ? ofFirst : await latest.runs, vcn)
    if (!found) throw refuse('malformed', `cluster ${vcn} of an attribute is in none of its runs`)
    return found
  }
}

async function* plain({ volume, boot, runs }: Place, offset: number, end: number): AsyncGenerator<Segment> {
  const { clusterBytes } = boot
  for (let at = offset; at < end; ) {
    const run = await runs(Math.floor(at / clusterBytes))
    const stop = Math.min(end, (run.vcn + run.count) * clusterBytes)
    if (run.lcn === null) yield { kind: 'hole', offset: at, length: stop - at }
    else {
      const hostOffset = run.lcn * clusterBytes + at - run.vcn * clusterBytes
      assertInside(volume, hostOffset, stop - at)
      yield { kind: 'data', offset: at, length: stop - at, hostOffset }
    }
    at = stop
  }
}

/** A unit of clusters is packed where the last of them are not there; all of them: it is as it is; none: zeros. */
async function* units(place: Place, offset: number, end: number): AsyncGenerator<Segment> {
  const { boot, runs, unitBytes } = place
  const { clusterBytes } = boot
  for (let at = offset; at < end; ) {
    const start = Math.floor(at / unitBytes) * unitBytes
    const stop = Math.min(end, start + unitBytes)
    const there: Run[] = []
    let hasEnded = false
    for (let vcn = start / clusterBytes, until = vcn + unitBytes / clusterBytes; vcn < until; ) {
      const run = await runs(vcn)
      const count = Math.min(until, run.vcn + run.count) - vcn
      if (run.lcn === null) hasEnded = true
      else if (hasEnded) throw refuse('malformed', `cluster ${vcn} of a compressed attribute comes after a hole in its unit`)
      else there.push({ vcn, count, lcn: run.lcn + vcn - run.vcn })
      vcn += count
    }
    if (there.length === 0) yield { kind: 'hole', offset: at, length: stop - at }
    else if (!hasEnded) yield* plain(place, at, stop)
    else {
      const from = at
      const load = async () => (await unpackedUnit(place, there)).subarray(from - start, stop - start)
      yield { kind: 'packed', offset: at, length: stop - at, load }
    }
    at = stop
  }
}

async function unpackedUnit({ volume, boot: { clusterBytes }, unitBytes }: Place, there: readonly Run[]): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for (const { lcn, count } of there) {
    assertInside(volume, lcn! * clusterBytes, count * clusterBytes)
    parts.push(await volume.read(lcn! * clusterBytes, count * clusterBytes))
  }
  return unpackLznt1(Buffer.concat(parts), unitBytes)
}

function assertInside(volume: BlockSource, offset: number, length: number): void {
  if (offset + length > volume.size) throw refuse('truncated', 'a cluster lies beyond the end of the volume', { offset })
}
