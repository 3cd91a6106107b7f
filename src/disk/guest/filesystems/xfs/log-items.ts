import type { Log } from './log.ts'
import { refuse, viewOf } from './superblock.ts'

/** Transactions in a log. Source: "XFS Algorithms & Data Structures", "Log Operations"; Linux fs/xfs/libxfs/xfs_log_format.h. */
const OPERATION_BYTES = 12
const FLAG = { start: 0x1, commit: 0x2, isContinued: 0x8, unmount: 0x20 } as const
const TRANSACTION_MAGIC = 0x5452414e // "TRAN"
const TRANSACTION_BYTES = 16
/** Of transactions that wait for their end. */
const MAX_PENDING_BYTES = 64 * 2 ** 20
/** What a region costs beside its bytes. */
const REGION_BYTES = 64

/** One thing that a transaction changes: what it is, and then what is new. */
export interface LogItem {
  readonly type: number
  readonly regions: readonly Uint8Array[]
}

const bad = (problem: string) => refuse('malformed', `the log: ${problem}`)

/** What each whole transaction between tail and head changes, in the order of their ends. */
export async function* transactionsIn(log: Log, tail: number, head: number): AsyncGenerator<readonly LogItem[]> {
  const pending = new Map<number, Uint8Array[]>()
  let pendingBytes = 0
  let left = (head - tail + log.sectors) % log.sectors || log.sectors
  for (let sector = tail; left > 0; ) {
    const record = await log.record(sector)
    if (record.sectors > left) throw bad(`the record at its sector ${sector} goes beyond its head`)
    for (const { id, flags, data } of operationsIn(await log.contents(record), record.header.operations)) {
      if ((flags & FLAG.unmount) !== 0) continue
      if ((flags & FLAG.start) !== 0) pending.set(id, [])
      const regions = pending.get(id)
      if (!regions) continue // its beginning was before the tail
      if ((flags & FLAG.commit) !== 0) {
        pending.delete(id)
        pendingBytes -= regions.reduce((sum, { length }) => sum + length + REGION_BYTES, 0)
        yield itemsIn(regions)
        continue
      }
      if (data.length === 0) continue
      pendingBytes += data.length + REGION_BYTES
      if (pendingBytes > MAX_PENDING_BYTES)
        throw refuse('too-many', `the log: more than ${MAX_PENDING_BYTES} bytes in transactions`)
      const before = (flags & FLAG.isContinued) !== 0 ? regions.pop() : undefined
      if (before) pendingBytes -= REGION_BYTES
      regions.push(before ? Buffer.concat([before, data]) : new Uint8Array(data))
    }
    left -= record.sectors
    sector = (sector + record.sectors) % log.sectors
  }
}

interface Operation {
  /** Of the transaction. */
  readonly id: number
  readonly flags: number
  readonly data: Uint8Array
}

function* operationsIn(input: Uint8Array, count: number): Generator<Operation> {
  const view = viewOf(input)
  let at = 0
  for (let index = 0; index < count; index += 1) {
    const dataAt = at + OPERATION_BYTES
    if (dataAt > input.length) throw bad(`operation ${index} of ${count} is cut off`)
    const end = dataAt + view.getUint32(at + 4)
    if (end > input.length) throw bad(`oh_len is ${end - dataAt}`)
    yield { id: view.getUint32(at), flags: view.getUint8(at + 9), data: input.subarray(dataAt, end) }
    at = end
  }
}

/** The first region is the transaction's own; then each item says of how many it is. */
function itemsIn(regions: readonly Uint8Array[]): LogItem[] {
  const [own, ...rest] = regions
  if (!own) return []
  if (own.length !== TRANSACTION_BYTES || viewOf(own).getUint32(0, true) !== TRANSACTION_MAGIC)
    throw bad('a transaction without its magic')
  const items: LogItem[] = []
  for (let at = 0; at < rest.length; ) {
    const first = rest[at]!
    if (first.length < 4) throw bad('an item without its kind')
    const count = viewOf(first).getUint16(2, true)
    if (count === 0 || at + count > rest.length) throw bad(`an item of ${count} regions, with ${rest.length - at} left`)
    items.push({ type: viewOf(first).getUint16(0, true), regions: rest.slice(at, at + count) })
    at += count
  }
  return items
}
