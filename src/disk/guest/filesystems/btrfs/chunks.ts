import { struct, u16le, u32le, u64le } from '../../../../base/struct.ts'
import { itemKey, TYPES } from './keys.ts'
import { refuse, type Superblock } from './superblock.ts'
import type { Locate, Trees } from './trees.ts'

/** A chunk: which bytes of the volume a range of logical addresses is. Source: btrfs documentation, "On-disk format", "CHUNK_ITEM"; Linux include/uapi/linux/btrfs_tree.h. */
const record = struct('btrfs chunk', {
  bytes: u64le(0),
  type: u64le(24),
  stripes: u16le(44),
})
const STRIPES_AT = 48
const STRIPE_BYTES = 32
const stripeRecord = struct('btrfs stripe', { deviceId: u64le(0), offset: u64le(8) })
const keyRecord = struct('btrfs key', { offset: u64le(9), objectLow: u32le(0), objectHigh: u32le(4) })
const KEY_BYTES = 17
const CHUNK_TREE_OBJECT = 256
const MAX_COPIES = 2
/** The chunks that were looked up last: a file's extents lie in few. */
const MAX_KEPT = 64

const PROFILE = {
  raid0: 0x8,
  raid1: 0x10,
  dup: 0x20,
  raid10: 0x40,
  raid5: 0x80,
  raid6: 0x100,
  raid1c3: 0x200,
  raid1c4: 0x400,
} as const

export interface Chunk {
  /** Logical. */
  readonly start: number
  readonly end: number
  /** Where each copy begins on the volume. */
  readonly copies: readonly number[]
}

export interface ChunkMap {
  readonly locate: Locate
  /** Every chunk, in order. */
  all(): AsyncIterable<Chunk>
}

/** The chunks that hold the tree of chunks: the superblock has them. @throws ServiceError `invalid-image` */
export function systemChunks(superblock: Superblock): ChunkMap {
  const { systemChunks: bytes, systemChunkBytes } = superblock.raw
  const chunks: Chunk[] = []
  for (let at = 0; at < systemChunkBytes; ) {
    if (at + KEY_BYTES + STRIPES_AT > systemChunkBytes) throw refuse('malformed', 'sys_chunk_array is cut off in a chunk')
    const { offset } = keyRecord.parse(bytes.subarray(at))
    const data = bytes.subarray(at + KEY_BYTES, systemChunkBytes)
    const chunk = parseChunk(offset, data, superblock)
    chunks.push(chunk)
    at += KEY_BYTES + STRIPES_AT + record.parse(data).stripes * STRIPE_BYTES
  }
  return {
    async locate(address, length) {
      return placesIn(chunks, address, length) ?? nowhere(address)
    },
    async *all() {
      yield* chunks
    },
  }
}

/** All chunks; each is looked up in its tree when it is needed. @param systemTrees which read the tree of chunks */
export function chunksOf(systemTrees: Trees, superblock: Superblock): ChunkMap {
  const { chunkRoot, chunkRootLevel, chunkRootGeneration } = superblock.raw
  const root = { address: chunkRoot, level: chunkRootLevel, generation: chunkRootGeneration }
  const kept: Chunk[] = [] // the last that was used is the first
  const keep = (chunk: Chunk) => {
    kept.unshift(chunk)
    if (kept.length > MAX_KEPT) kept.pop()
  }
  return {
    async locate(address, length) {
      const known = placesIn(kept, address, length)
      if (known) return known
      const item = await systemTrees.floor(root, itemKey(CHUNK_TREE_OBJECT, TYPES.chunk, address))
      if (item?.object !== CHUNK_TREE_OBJECT || item.type !== TYPES.chunk) return nowhere(address)
      const chunk = parseChunk(item.offset, item.data, superblock)
      const places = placesIn([chunk], address, length)
      if (!places) return nowhere(address)
      keep(chunk)
      return places
    },
    async *all() {
      for await (const { object, type, offset, data } of systemTrees.from(root, itemKey(CHUNK_TREE_OBJECT, TYPES.chunk, 0))) {
        if (object !== CHUNK_TREE_OBJECT || type !== TYPES.chunk) return
        yield parseChunk(offset, data, superblock)
      }
    },
  }
}

function placesIn(chunks: readonly Chunk[], address: number, length: number): number[] | undefined {
  const chunk = chunks.find(({ start, end }) => address >= start && address < end)
  if (!chunk) return undefined
  if (length > chunk.end - address) {
    throw refuse('malformed', `${length} bytes at ${address} go on beyond the end of their chunk, at ${chunk.end}`, { address })
  }
  return chunk.copies.map((copy) => copy + address - chunk.start)
}

function nowhere(address: number): never {
  throw refuse('malformed', `address ${address} is in no chunk`, { address })
}

function parseChunk(start: number, data: Uint8Array, { raw: { deviceId, sectorBytes, deviceBytes } }: Superblock): Chunk {
  const { bytes, type, stripes } = record.parse(data)
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', `the chunk at ${start}: ${problem}`, { address: start })
  }
  const end = start + bytes
  check(Number.isSafeInteger(end) && bytes > 0 && bytes % sectorBytes === 0, `length is ${bytes}`)
  check(stripes > 0 && STRIPES_AT + stripes * STRIPE_BYTES <= data.length, `num_stripes is ${stripes}`)
  const profiles = Object.entries(PROFILE).filter(([, flag]) => Math.floor(type / flag) % 2 === 1)
  const [profile, ...more] = profiles.map(([name]) => name)
  const isLinear = profile === undefined || profile === 'dup' || (profile === 'raid0' && stripes === 1)
  if (!isLinear || more.length > 0) {
    throw refuse(
      'missing-devices',
      `the chunk at ${start} is ${profiles.map(([name]) => name).join(' and ')}, of ${stripes} devices`,
      {
        address: start,
      },
    )
  }
  check(stripes === (profile === 'dup' ? MAX_COPIES : 1), `num_stripes is ${stripes}, and it is ${profile ?? 'single'}`)
  const copies = Array.from({ length: stripes }, (_, index) => {
    const stripe = stripeRecord.parse(data.subarray(STRIPES_AT + index * STRIPE_BYTES))
    check(stripe.deviceId === deviceId, `it is on device ${stripe.deviceId}, and this is device ${deviceId}`)
    check(
      stripe.offset % sectorBytes === 0 && stripe.offset + bytes <= deviceBytes,
      `it is at byte ${stripe.offset}, and the device has ${deviceBytes}`,
    )
    return stripe.offset
  })
  return { start, end, copies }
}
