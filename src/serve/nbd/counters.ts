import type { COMMAND } from './protocol.ts'

/** What a server has done since its start; whoever shows it reads it when asked. */
export interface NbdCounters {
  connections: number
  handshaking: number
  connectionsTotal: number
  handshakesFailed: number
  /** Ended by us: too slow, idle, too many, revoked, or against the protocol. */
  connectionsDropped: number
  readonly requests: Record<keyof typeof COMMAND, number>
  requestErrors: number
  bytesRead: number
  bytesWritten: number
}

export const newCounters = (): NbdCounters => ({
  connections: 0,
  handshaking: 0,
  connectionsTotal: 0,
  handshakesFailed: 0,
  connectionsDropped: 0,
  requests: { READ: 0, WRITE: 0, DISC: 0, FLUSH: 0, TRIM: 0, CACHE: 0, WRITE_ZEROES: 0, BLOCK_STATUS: 0 },
  requestErrors: 0,
  bytesRead: 0,
  bytesWritten: 0,
})
