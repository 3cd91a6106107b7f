/** What a host did to have the chunks that were read, since it began. */
export interface HostCounters {
  /** Over the line, and their bytes as they travelled. */
  chunksFetched: number
  bytesFetched: number
  /** Found in the cache on disk, where each was verified. */
  chunksKept: number
  /** Found in the cache on disk, but not what they should be. */
  chunksDamaged: number
  /** Requests that were made again. */
  retries: number
}

export const newHostCounters = (): HostCounters => ({
  chunksFetched: 0,
  bytesFetched: 0,
  chunksKept: 0,
  chunksDamaged: 0,
  retries: 0,
})
