import { ServiceError } from '../../../base/errors.ts'
import { struct, u16be, u32be, u64be } from '../../../base/struct.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { InternalSnapshot } from '../format-driver.ts'
import { inFile, MAX_L1_BYTES, type Qcow2Header, readHeader, refuse, SECTOR_BYTES } from './header.ts'

/** Source: QEMU docs/interop/qcow2, section "Snapshots". Followed by extra data, id and name, and filled up to 8 bytes. */
const entryHeader = struct('qcow2 snapshot table entry', {
  l1TableOffset: u64be(0),
  l1Entries: u32be(8),
  idBytes: u16be(12),
  nameBytes: u16be(14),
  seconds: u32be(16), // since 1970
  nanoseconds: u32be(20),
  extraBytes: u32be(36),
})
/** The disk's size then; files of version 2 may lack it. */
const extraData = struct('qcow2 snapshot extra data', { virtualBytes: u64be(8) })
const ENTRY_HEADER_BYTES = 40

const MAX_TABLE_BYTES = 64 * MiB // QEMU's QCOW_MAX_SNAPSHOTS_SIZE
const MAX_EXTRA_BYTES = 1024 // QEMU's QCOW_MAX_SNAPSHOT_EXTRA_DATA
const MAX_ID_BYTES = 255 // QEMU keeps 127
const MAX_NAME_BYTES = 1023 // QEMU keeps 255
const MAX_ENTRY_BYTES = ENTRY_HEADER_BYTES + MAX_EXTRA_BYTES + MAX_ID_BYTES + MAX_NAME_BYTES
const WINDOW_BYTES = 64 * KiB

/** A disk of an earlier moment, and where its tables are. Its L1 table lies in the file and is large enough. */
export interface Snapshot extends InternalSnapshot {
  readonly l1TableOffset: number
  readonly l1Entries: number
  /** Where the entry ends in the file. */
  readonly entryEnd: number
}

/** The table of internal snapshots, entry by entry. Reads it in windows of 64 KiB. @throws ServiceError `invalid-image` */
export async function* snapshotsOf(file: BlockSource, h: Qcow2Header): AsyncGenerator<Snapshot> {
  const tableEnd = Math.min(file.size, h.snapshotsOffset + MAX_TABLE_BYTES)
  let at = h.snapshotsOffset
  let windowAt = at
  let window = new Uint8Array(0)
  for (let index = 0; index < h.snapshots; index += 1) {
    const wanted = Math.min(MAX_ENTRY_BYTES, Math.max(0, tableEnd - at))
    if (at + wanted > windowAt + window.length) {
      windowAt = at
      window = Uint8Array.from(await file.read(at, Math.min(WINDOW_BYTES, tableEnd - at)))
    }
    const snapshot = parseEntry(window.subarray(at - windowAt, at - windowAt + wanted), index, at, h, file.size)
    yield snapshot
    at = Math.ceil(snapshot.entryEnd / 8) * 8
  }
}

/** @param bytes what the table has from this entry on, no more than the longest one */
function parseEntry(bytes: Uint8Array, index: number, at: number, h: Qcow2Header, fileBytes: number): Snapshot {
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', `snapshot ${index}, at byte ${at}: ${problem}`, { index, at, ...details })
  }
  const cutOff = () => refuse('truncated', `snapshot ${index}, at byte ${at}, goes on behind the end of its table`, { index, at })
  if (bytes.length < ENTRY_HEADER_BYTES) throw cutOff()
  const { l1TableOffset, l1Entries, idBytes, nameBytes, seconds, nanoseconds, extraBytes } = entryHeader.parse(bytes)
  check(extraBytes <= MAX_EXTRA_BYTES, `it has ${extraBytes} bytes of extra data; at most ${MAX_EXTRA_BYTES}`, { extraBytes })
  check(idBytes <= MAX_ID_BYTES, `its id has ${idBytes} bytes; at most ${MAX_ID_BYTES}`, { idBytes })
  check(nameBytes <= MAX_NAME_BYTES, `its name has ${nameBytes} bytes; at most ${MAX_NAME_BYTES}`, { nameBytes })
  const idStart = ENTRY_HEADER_BYTES + extraBytes
  const nameStart = idStart + idBytes
  const end = nameStart + nameBytes
  if (end > bytes.length) throw cutOff()

  const extra = bytes.subarray(ENTRY_HEADER_BYTES, idStart)
  const virtualBytes = extraBytes >= extraData.bytes ? extraData.parse(extra).virtualBytes : h.virtualBytes
  check(virtualBytes % SECTOR_BYTES === 0, `its size, ${virtualBytes}, is not a multiple of ${SECTOR_BYTES} bytes`)
  check(l1Entries * 8 <= MAX_L1_BYTES, `its L1 table has ${l1Entries} entries; at most ${MAX_L1_BYTES / 8}`, { l1Entries })
  const needed = l1EntriesFor(virtualBytes, h)
  check(l1Entries >= needed, `its L1 table is too small for its size: ${l1Entries} of ${needed} entries`, { l1Entries })
  check(l1TableOffset % h.clusterBytes === 0, 'its L1 table is not aligned to a cluster', { l1TableOffset })
  inFile(`the L1 table of snapshot ${index}`, l1TableOffset, l1Entries * 8, fileBytes)

  const text = new TextDecoder()
  return {
    id: text.decode(bytes.subarray(idStart, nameStart)),
    name: text.decode(bytes.subarray(nameStart, end)),
    virtualBytes,
    at: seconds * 1000 + Math.floor(nanoseconds / 1_000_000),
    l1TableOffset,
    l1Entries,
    entryEnd: at + end,
  }
}

const l1EntriesFor = (virtualBytes: number, { clusterBytes, l2Entries }: Qcow2Header): number =>
  Math.ceil(virtualBytes / clusterBytes / l2Entries)

/** The header that the file would have if the snapshot were its disk. */
export const headerOfSnapshot = (h: Qcow2Header, { virtualBytes, l1Entries, l1TableOffset }: Snapshot): Qcow2Header => ({
  ...h,
  virtualBytes,
  l1Entries,
  l1NeededEntries: l1EntriesFor(virtualBytes, h),
  l1TableOffset,
})

/** @throws ServiceError `not-found`; `invalid-image` where the table is damaged before that */
export async function snapshotNamed(file: BlockSource, h: Qcow2Header, id: string): Promise<Snapshot> {
  for await (const snapshot of snapshotsOf(file, h)) if (snapshot.id === id) return snapshot
  throw new ServiceError('not-found', `qcow2: the file has no internal snapshot with the id "${id}"`, { snapshot: id })
}

/** At most 65,536 of them, and 64 MiB of names. @throws ServiceError `invalid-image` | `unsupported` */
export async function listSnapshots(file: BlockSource): Promise<readonly InternalSnapshot[]> {
  const list: InternalSnapshot[] = []
  for await (const { id, name, virtualBytes, at } of snapshotsOf(file, await readHeader(file, 'any'))) {
    list.push({ id, name, virtualBytes, at })
  }
  return list
}
