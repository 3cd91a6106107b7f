import type { BlockSource } from '../../disk/block/block-source.ts'
import type { BlockWriter } from '../../disk/block/block-writer.ts'

export type { BlockWriter } from '../../disk/block/block-writer.ts'

/** Bytes, powers of two: what requests must be multiples of, and what they best are multiples of. */
export interface BlockSizes {
  readonly minimumBytes: number
  readonly preferredBytes: number
}

/** One disk as one client has it open. */
export interface Export {
  /** Not closed by the server: `release` is its farewell. */
  readonly disk: BlockSource
  /** Absent: read-only. */
  readonly writer?: BlockWriter
  /** Fetches a range ahead of its reading: what clients ask for with CACHE. Absent: not offered. */
  readonly prefetch?: (offset: number, length: number) => Promise<void>
  /** For people, in `nbdinfo`. At most 4096 bytes. */
  readonly description: string
  readonly blockSizes: BlockSizes
  /** Whether a flush on one connection covers the writes of all. Read-only exports may be used by many in any case. */
  readonly multiConnection: boolean
  /** Aborted when the lease is over: the connection ends at once, and nothing more is read. */
  readonly revoked: AbortSignal
  /** Called once for each export that `open` gave, when no request of its connection is under way any more. */
  release(): void | Promise<void>
}

/** What the server knows of who asks. */
export interface NbdPeer {
  readonly tls: boolean
  /** The user of the pre-shared key, or the common name of the verified certificate; null without either. */
  readonly identity: string | null
  /** For the log: `address:port`, or "unix". */
  readonly address: string
}

export interface ListedExport {
  readonly name: string
  readonly description: string
}

/** Where exports come from. Names are handles that cannot be guessed and die with their lease; the source alone knows them. */
export interface ExportSource {
  /** @returns undefined for every name that this peer may not open: why not is nobody's business, nor how long it took */
  open(name: string, peer: NbdPeer): Promise<Export | undefined>
  /** What this peer may see listed; handles are secrets, so usually nothing. */
  list(peer: NbdPeer): Promise<readonly ListedExport[]>
}
