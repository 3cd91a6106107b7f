import type { Filter } from '../block/block-source.ts'

export interface ReplayOptions {
  /** In the order in which they will be wanted; each once. */
  readonly units: readonly number[]
  readonly unitBytes: number
  /** Brings units nearer, in this order; nobody waits for it, and what it throws is for the read that follows to meet. */
  readonly prefetch: (units: readonly number[]) => Promise<void>
  /** So many units may be fetched and not read yet: far fewer than what drives out what was fetched. */
  readonly distance: number
}

/** What is fetched at a time is a large part of the distance, so that it goes in few large requests. */
const BATCHES_OF_DISTANCE = 4

/**
 * Fetches in the order of an earlier reader, a bounded distance ahead of this one. It goes on as this one reads what was recorded: whoever
 * reads other things costs no more than the distance. What was passed over is given up when the reader has read twice the distance since,
 * so that a reader who differs a little is kept ahead of to the end.
 */
export const replayReads =
  ({ units, unitBytes, prefetch, distance }: ReplayOptions): Filter =>
  (next) => {
    const recorded = new Set(units)
    /** Fetched and not read: how many recorded units had been read when it was fetched. In the order of fetching. */
    const ahead = new Map<number, number>()
    let fetched = 0
    let read = 0

    const giveUp = (): void => {
      for (const [unit, at] of ahead) {
        if (read - at <= 2 * distance) return
        ahead.delete(unit)
      }
    }
    const fetch = (): void => {
      giveUp()
      const room = distance - ahead.size
      if (fetched >= units.length || room < distance / BATCHES_OF_DISTANCE) return
      const batch: number[] = []
      for (; batch.length < room && fetched < units.length; fetched += 1) {
        const unit = units[fetched]!
        if (!recorded.has(unit)) continue // it was read already
        ahead.set(unit, read)
        batch.push(unit)
      }
      if (batch.length > 0) void prefetch(batch).catch(() => undefined)
    }
    const follow = (offset: number, length: number): void => {
      let isRecorded = fetched === 0
      for (let unit = Math.floor(offset / unitBytes); unit * unitBytes < offset + length; unit += 1) {
        if (!recorded.delete(unit)) continue
        ahead.delete(unit)
        read += 1
        isRecorded = true
      }
      if (isRecorded) fetch()
    }
    return {
      size: next.size,
      read: (offset, length, into) => {
        const answer = next.read(offset, length, into) // what is waited for goes first
        if (length > 0 && recorded.size > 0) follow(offset, length)
        return answer
      },
      extents: (offset, length) => next.extents(offset, length),
      close: () => next.close(),
    }
  }
