import type { Filter } from '../block/block-source.ts'

export interface ReadAheadOptions {
  /** Brings a range of the source nearer; nobody waits for it, and what it throws is for the read that follows to meet. */
  readonly prefetch: (offset: number, length: number) => Promise<void>
  /** What the source fetches at a time, aligned to it: its chunk size. */
  readonly unitBytes: number
}

/** Readers of one disk that are told apart: a booting machine reads a few files at once. */
const MAX_STREAMS = 8
/** Reads of one stream begin no further apart. */
const MAX_STRIDE_BYTES = 8 * 2 ** 20
/** Reads of no stream that are remembered: three of them in equal strides make one. */
const MAX_STRAYS = 16
const FIRST_UNITS = 2
/** Furthest ahead of one stream, and most that is under way for all of them. */
const MAX_UNITS = 32

interface Stream {
  /** Where its last read began. */
  last: number
  readonly stride: number
  /** Where fetching goes on. */
  reach: number
  /** How far ahead of the last read. */
  units: number
}

/**
 * Fetches ahead of readers that go through a disk in equal strides: from end to end, or in steps with gaps between. The distance
 * doubles as a stream goes on, from 2 units to 32; random reads fetch nothing.
 */
export const readAhead =
  ({ prefetch, unitBytes }: ReadAheadOptions): Filter =>
  (next) => {
    const streamOf = streamFinder()
    let underWay = 0

    const fetch = (offset: number, length: number): void => {
      underWay += 1
      const bytes = Math.min(length, next.size - offset)
      const done = () => {
        underWay -= 1
      }
      void prefetch(offset, bytes).then(done, done)
    }

    const follow = (offset: number, length: number): void => {
      const stream = streamOf(offset)
      if (!stream) return
      const isGapless = stream.stride <= Math.max(length, unitBytes)
      const step = isGapless ? unitBytes : stream.stride
      const from = isGapless ? Math.ceil((offset + length) / unitBytes) * unitBytes : offset + step
      const units = Math.max(stream.units, Math.ceil(length / unitBytes))
      const unitsOfStep = isGapless ? 1 : Math.ceil(length / unitBytes)
      const end = Math.min(next.size, from + step * Math.max(1, Math.floor(units / unitsOfStep)))
      let at = Math.max(from, stream.reach)
      if (end - at < (end - from) / 2) return // far enough ahead: what is asked for in larger pieces costs less
      for (; at < end && underWay < MAX_UNITS; at += step) fetch(at, isGapless ? unitBytes : length)
      stream.reach = at
      stream.units = Math.min(MAX_UNITS, 2 * units)
    }

    return {
      size: next.size,
      read: (offset, length, into) => {
        if (length > 0 && length <= MAX_STRIDE_BYTES) follow(offset, length)
        return next.read(offset, length, into)
      },
      extents: (offset, length) => next.extents(offset, length),
      close: () => next.close(),
    }
  }

/** @returns tells which stream a read goes on; undefined for a read that is, so far, alone */
function streamFinder(): (offset: number) => Stream | undefined {
  const streams: Stream[] = [] // the one that moved last comes first
  const strays: number[] = []
  return (offset) => {
    const index = streams.findIndex(({ last, stride }) => last + stride === offset)
    const [known] = index === -1 ? [] : streams.splice(index, 1)
    const stream = known ?? begun(strays, offset)
    if (!stream) return undefined
    stream.last = offset
    streams.unshift(stream)
    if (streams.length > MAX_STREAMS) streams.pop()
    return stream
  }
}

function begun(strays: number[], offset: number): Stream | undefined {
  const before = strays.find((one) => one < offset && offset - one <= MAX_STRIDE_BYTES && strays.includes(2 * one - offset))
  if (before !== undefined) return { last: offset, stride: offset - before, reach: 0, units: FIRST_UNITS }
  strays.push(offset)
  if (strays.length > MAX_STRAYS) strays.shift()
  return undefined
}
