import { KiB, MiB } from '../../base/units.ts'

/** What one server may be made to hold and to wait for. Times in ms, memory in bytes. */
export interface NbdLimits {
  /** Length of a READ or WRITE. What clients take as the usual maximum, and what we tell them. */
  readonly maxRequestBytes: number
  /** Data of requests under way and replies not yet taken, all connections together, beyond `shareBytes` of each. */
  readonly sharedBytes: number
  /** The same for one connection; at least one request of any length gets in. */
  readonly connectionBytes: number
  /** What each connection has for itself, so that others who fill the shared memory do not stop it. */
  readonly shareBytes: number
  /** Requests of one connection that are under way at once. */
  readonly connectionRequests: number
  /** Connections that have chosen an export. Later ones are refused. */
  readonly maxConnections: number
  /** Of these, to one export name. */
  readonly maxConnectionsPerExport: number
  /** Connections that have not: when there are more, the oldest goes, so a flood of silent ones keeps nobody out. */
  readonly maxHandshaking: number
  /** From connecting to the chosen export, TLS included. */
  readonly handshakeMs: number
  /** Connections without a request for so long are closed; null: never, since a guest's disk may rest for days. */
  readonly idleMs: number | null
  /** Who owes us bytes of a request, or does not take replies, has this long, and a second more for each 16 KiB of it. */
  readonly stallMs: number
  /** The same, with a second for each 256 KiB, when others wait for the shared memory that it holds. */
  readonly stallWhenWaitedForMs: number
}

export const defaultNbdLimits: NbdLimits = {
  maxRequestBytes: 32 * MiB,
  sharedBytes: 256 * MiB,
  connectionBytes: 64 * MiB,
  shareBytes: 256 * KiB,
  connectionRequests: 512,
  maxConnections: 1024,
  maxConnectionsPerExport: 64,
  maxHandshaking: 2048,
  handshakeMs: 10_000,
  idleMs: null,
  stallMs: 60_000,
  stallWhenWaitedForMs: 5_000,
}

export const STALL_BYTES_PER_SECOND = 16 * KiB
export const STALL_BYTES_PER_SECOND_WHEN_WAITED_FOR = 256 * KiB
