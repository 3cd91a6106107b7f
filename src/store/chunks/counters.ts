/** Counted since the store was opened, for metrics. */
export interface Counters {
  chunksNew: number
  chunksKnown: number
  chunksZero: number
  bytesIngested: number
  bytesRead: number
  cacheHits: number
  cacheMisses: number
  collections: number
  bytesFreed: number
}

export const newCounters = (): Counters => ({
  chunksNew: 0,
  chunksKnown: 0,
  chunksZero: 0,
  bytesIngested: 0,
  bytesRead: 0,
  cacheHits: 0,
  cacheMisses: 0,
  collections: 0,
  bytesFreed: 0,
})
