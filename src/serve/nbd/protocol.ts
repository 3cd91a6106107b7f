/**
 * The numbers of the NBD protocol, fixed newstyle; everything is big-endian.
 * Source: NetworkBlockDevice/nbd doc/proto.md, section "Values". Names are the document's, without their `NBD_`.
 */

/** 64-bit magics, as two halves: a `bigint` for each request would cost more than the request. */
export const INIT_PASSWD = [0x4e42444d, 0x41474943] as const // "NBDMAGIC"
export const OPTION_MAGIC = [0x49484156, 0x454f5054] as const // "IHAVEOPT"
export const OPTION_REPLY_MAGIC = [0x0003e889, 0x045565a9] as const
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef

export const REQUEST_BYTES = 28
export const SIMPLE_REPLY_BYTES = 16
/** Header of a chunk of a structured reply; a chunk of data has its offset after it. */
export const CHUNK_HEADER_BYTES = 20
export const DATA_CHUNK_HEADER_BYTES = 28
export const OPTION_HEADER_BYTES = 16

/** "handshake flags", and the client's answer to them. */
export const HANDSHAKE_FIXED_NEWSTYLE = 1
export const HANDSHAKE_NO_ZEROES = 2

export const OPTION = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const

export const OPTION_REPLY = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_TLS_REQD: 0x80000005,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_BLOCK_SIZE_REQD: 0x80000008,
  ERR_TOO_BIG: 0x80000009,
} as const

export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const

/** "transmission flags": what an export offers. */
export const OFFERS = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  FLUSH: 1 << 2,
  FUA: 1 << 3,
  TRIM: 1 << 5,
  WRITE_ZEROES: 1 << 6,
  DF: 1 << 7,
  MULTI_CONN: 1 << 8,
  CACHE: 1 << 10,
  FAST_ZERO: 1 << 11,
} as const

export const COMMAND = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const

export const COMMAND_FLAG = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const

export const CHUNK = { NONE: 0, OFFSET_DATA: 1, OFFSET_HOLE: 2, BLOCK_STATUS: 5, ERROR: 0x8001 } as const
export const CHUNK_FLAG_DONE = 1

/** Flags of `base:allocation`. */
export const STATE_HOLE = 1
export const STATE_ZERO = 2
export const BASE_ALLOCATION = 'base:allocation'

/** "Error values": numbers of the protocol, whatever errno is here. */
export const ERRNO = {
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const
export type Errno = (typeof ERRNO)[keyof typeof ERRNO]

/** "A string ... no larger than 4096 bytes": the document's limit for names, queries and descriptions. */
export const MAX_STRING_BYTES = 4096
