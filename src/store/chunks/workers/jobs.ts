/** What the worker threads do. A *slot* is a numbered piece of the memory that all threads share. */
export interface HashJob {
  readonly kind: 'hash'
  readonly slot: number
  /** Bytes in the slot, from its start. */
  readonly bytes: number
  readonly chunkBytes: number
}
/** Compresses chunks where they lie; what does not get smaller stays plain. */
export interface CompressJob {
  readonly kind: 'compress'
  readonly slot: number
  readonly chunkBytes: number
  /** Places of the chunks in the slot, in units of `chunkBytes`, and their plain bytes. */
  readonly places: readonly number[]
  readonly plainBytes: readonly number[]
}
/** Makes plain chunks from stored bytes and compares them with their digests. */
export interface DecodeJob {
  readonly kind: 'decode'
  /** What was read from packs. */
  readonly inputs: readonly Uint8Array[]
  readonly chunks: readonly StoredChunk[]
  /** Of an answer that holds all chunks, each at its `to`, zeros between; absent: only whether they match is asked. */
  readonly joinedBytes?: number
}
export interface StoredChunk {
  readonly input: number
  /** Where in the input. */
  readonly at: number
  readonly storedBytes: number
  readonly plainBytes: number
  readonly codec: number
  readonly digest: Uint8Array
  /** Where in the joined answer. */
  readonly to: number
}
/**
 * The same in a read slot, where the stored bytes lie already: plain chunks end up each at its `to`, zeros between. A chunk
 * that was read to its `to` stays where it is.
 */
export interface VerifyJob {
  readonly kind: 'verify'
  readonly slot: number
  /** Bytes from the start of the slot that are to hold chunks and zeros. */
  readonly bytes: number
  /** Ascending by `to`. */
  readonly chunks: readonly SlotChunk[]
  /** 32 bytes a chunk. */
  readonly digests: Uint8Array
}
/** The same from the staging memory into places of the chunk memory. */
export interface LoadJob {
  readonly kind: 'load'
  /** `at` in the staging memory, `to` in the chunk memory. */
  readonly chunks: readonly SlotChunk[]
  /** 32 bytes a chunk. */
  readonly digests: Uint8Array
}
export interface SlotChunk {
  /** Of its stored bytes. */
  readonly at: number
  readonly storedBytes: number
  readonly plainBytes: number
  readonly codec: number
  readonly to: number
}
/** Unpacks what a client sent into a slot, one chunk in each place, and hashes it. */
export interface UnpackJob {
  readonly kind: 'unpack'
  readonly slot: number
  readonly chunkBytes: number
  readonly chunks: readonly { readonly bytes: Uint8Array; readonly codec: number }[]
}
/** Digests of whole streams; jobs of one stream go to one worker, in order. */
export interface DigestJob {
  readonly kind: 'digest'
  readonly stream: number
  readonly algorithm: 'md5' | 'sha256' | 'sha512'
  readonly piece: Piece
}
/** Bytes of a stream, where they lie: in the memory of the slots or the read slots, nowhere since they are zeros, or here. */
export type Piece =
  | { readonly in: 'slots' | 'read-slots'; readonly at: number; readonly bytes: number }
  | { readonly in: 'zeros'; readonly bytes: number }
  | { readonly in: 'message'; readonly content: Uint8Array }
/** Answers the digest, and forgets the stream. */
export interface DigestEndJob {
  readonly kind: 'digest-end'
  readonly stream: number
}

export type Job = HashJob | CompressJob | DecodeJob | VerifyJob | LoadJob | UnpackJob | DigestJob | DigestEndJob

export interface JobResults {
  /** 32 bytes a chunk; zeros for a chunk of zeros. */
  hash: Uint8Array
  /** Of each chunk as it is stored: bytes, codec and checksum. */
  compress: { readonly storedBytes: number[]; readonly codecs: number[]; readonly crcs: number[] }
  /** Places of chunks that do not match their digest: the answer must not be used then. */
  decode: { readonly joined: Uint8Array; readonly damaged: number[] }
  /** Places of chunks that do not match their digest: the slot must not be used then. */
  verify: number[]
  /** Places of chunks that do not match their digest. */
  load: number[]
  /** Plain bytes of each chunk, 0 where it cannot be unpacked into at most `chunkBytes`. */
  unpack: { readonly plainBytes: number[]; readonly digests: Uint8Array }
  digest: null
  'digest-end': string
}

export interface Request {
  readonly id: number
  readonly job: Job
}
export type Reply = { readonly id: number; readonly result: unknown } | { readonly id: number; readonly error: string }
export interface WorkerSettings {
  readonly memory: SharedArrayBuffer
  readonly slotBytes: number
  readonly readMemory: SharedArrayBuffer
  readonly stagingMemory: SharedArrayBuffer
  readonly chunkMemory: SharedArrayBuffer
}
