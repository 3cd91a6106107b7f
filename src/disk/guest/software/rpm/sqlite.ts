import { ServiceError } from '../../../../base/errors.ts'
import { bytes, struct, u8, u16be, u32be } from '../../../../base/struct.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { type Blob, chained, PagesOnce, type ReadHeaders, refuse, unsupported, without } from './blob.ts'
import { isPageSize, readWal, type WriteAheadLog } from './wal.ts'

/**
 * `rpmdb.sqlite`: one table of it, read page by page; no statement of the file is ever run. Source: SQLite, "Database File Format"; rpm,
 * lib/backend/sqlite.c.
 */
const head = struct('header of rpmdb.sqlite', {
  magic: bytes(0, 16),
  pageBytes: u16be(16), // 1: 65,536
  readVersion: u8(19), // 1: rollback journal, 2: write-ahead log
  reservedBytes: u8(20),
  encoding: u32be(56), // 1: UTF-8
})
const MAGIC = 'SQLite format 3\0'
const HEAD_BYTES = 100
const pageTypes = { interior: 5, leaf: 13 }
const MAX_DEPTH = 20 // BTCURSOR_MAX_DEPTH
/** At least, with the pointer to it. */
const LEAF_CELL_BYTES = 6
const INTERIOR_CELL_BYTES = 7
const MAX_PAGES = 2 ** 23 // 32 GiB of the usual pages
const MAX_SCHEMA_ROWS = 1000
const MAX_SCHEMA_BYTES = 65536
const MAX_RECORD_BYTES = 2 ** 30
const MAX_RECORD_HEAD_BYTES = 256
/** The table as rpm makes it, in what SQLite keeps of the statement. */
const PACKAGES =
  /^CREATE TABLE ['"]?Packages['"]?\s*\(\s*hnum INTEGER PRIMARY KEY(?: AUTOINCREMENT)?\s*,\s*blob BLOB NOT NULL\s*\)$/

interface Database {
  readonly usableBytes: number
  /** Pages are numbered from 1. */
  readonly pages: number
  read(page: number): Promise<Uint8Array>
}

interface Row {
  readonly id: number
  readonly record: Blob
}

/** @param log the file `rpmdb.sqlite-wal` beside it, where there is one */
export function openSqlite(file: BlockSource, log: BlockSource | undefined): ReadHeaders {
  return async function* (notes) {
    const database = await open(file, log && (await readWal(log)))
    const root = await rootOfPackages(database)
    for await (const { id, record } of rowsOf(database, root, (problem) => notes.add(problem))) {
      try {
        yield { what: `package ${id}`, blob: await columnBlob(record, 1) }
      } catch (error) {
        if (!(error instanceof ServiceError) || error.code !== 'invalid-image') throw error
        notes.add(`package ${id}: ${error.message}`)
      }
    }
  }
}

async function open(file: BlockSource, log: WriteAheadLog | undefined): Promise<Database> {
  if (file.size < HEAD_BYTES && !log) throw refuse(`has ${file.size} bytes and no header`, 'truncated')
  const facts = head.parse((await log?.read(1)) ?? (await file.read(0, HEAD_BYTES)))
  if (Buffer.from(facts.magic).toString('latin1') !== MAGIC) throw refuse('has no "SQLite format 3" at its start')
  const pageBytes = facts.pageBytes === 1 ? 65536 : facts.pageBytes
  if (!isPageSize(pageBytes)) throw refuse(`has pages of ${pageBytes} bytes, not of 512 to 65536`)
  if (log && log.pageBytes !== pageBytes) throw refuse(`has pages of ${pageBytes} bytes, and a log of ${log.pageBytes}`)
  if (facts.readVersion < 1 || facts.readVersion > 2)
    throw unsupported(`is of read version ${facts.readVersion}, and 1 and 2 are known`)
  if (facts.encoding > 1) throw unsupported(`has text in encoding ${facts.encoding}; rpm makes UTF-8`)
  const usableBytes = pageBytes - facts.reservedBytes
  if (usableBytes < 480) throw refuse(`reserves ${facts.reservedBytes} bytes of each page of ${pageBytes}`)
  const inFile = Math.floor(file.size / pageBytes)
  const pages = log?.pages ?? inFile
  if (pages > MAX_PAGES) throw new ServiceError('too-large', `the rpm database has ${pages} pages, more than ${MAX_PAGES}`)
  return {
    usableBytes,
    pages,
    async read(page) {
      const logged = await log?.read(page)
      if (logged) return logged
      if (page > inFile) throw refuse(`has no page ${page}: it ends after ${inFile}`, 'truncated')
      return file.read((page - 1) * pageBytes, pageBytes)
    },
  }
}

/** Of the one table that is named Packages: a view or two of them are none of rpm's. */
async function rootOfPackages(database: Database): Promise<number> {
  const found: { type: string; root: number; sql: string }[] = []
  let count = 0
  const broken = (problem: string) => {
    throw refuse(`has a list of tables that cannot be read: ${problem}`)
  }
  for await (const { record } of rowsOf(database, 1, broken)) {
    count += 1
    if (count > MAX_SCHEMA_ROWS) throw refuse(`has more than ${MAX_SCHEMA_ROWS} tables and indices`)
    const texts = await textColumns(record)
    const [type, name, , root, sql] = texts
    if (typeof name !== 'string' || name.toLowerCase() !== 'packages' || type === 'trigger' || type === 'index') continue
    found.push({ type: String(type), root: Number(root), sql: String(sql) })
  }
  const [only, another] = found
  if (!only) throw refuse('has no table Packages')
  if (another) throw refuse('has two tables named Packages')
  if (only.type !== 'table') throw refuse(`has a ${only.type === 'view' ? 'view' : 'thing'} named Packages where rpm has a table`)
  if (!PACKAGES.test(only.sql)) throw unsupported('has a table Packages that is not as rpm makes it')
  if (!Number.isSafeInteger(only.root) || only.root < 2) throw refuse(`has its table Packages at page ${only.root}`)
  return only.root
}

/** The rows of a table in the order of its b-tree; a page that is damaged is told, and the others read. */
async function* rowsOf(database: Database, root: number, damaged: (problem: string) => void): AsyncGenerator<Row> {
  const once = new PagesOnce(1, database.pages + 1)
  let last = -1 // ids ascend: a cell that is pointed at twice is one row
  const waiting: { page: number; depth: number }[] = [{ page: root, depth: 0 }]
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    try {
      const { page, depth } = next
      if (depth > MAX_DEPTH) throw refuse(`has a b-tree more than ${MAX_DEPTH} deep`)
      const data = await database.read(once.use(page))
      const start = page === 1 ? HEAD_BYTES : 0
      const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
      const [type, cells] = [data[start], view.getUint16(start + 3)]
      if (type !== pageTypes.leaf && type !== pageTypes.interior)
        throw refuse(`has page ${page} of type ${type} in a table, not of ${pageTypes.interior} or ${pageTypes.leaf}`)
      const [array, leastBytes] = type === pageTypes.leaf ? [start + 8, LEAF_CELL_BYTES] : [start + 12, INTERIOR_CELL_BYTES]
      if (array + cells * leastBytes > database.usableBytes) throw refuse(`has page ${page} with ${cells} cells`)
      const at = (cell: number): number => {
        const place = view.getUint16(array + cell * 2)
        if (place < array + cells * 2 || place + 4 > database.usableBytes)
          throw refuse(`has page ${page} with a cell at ${place}`)
        return place
      }
      if (type === pageTypes.interior) {
        waiting.push({ page: view.getUint32(start + 8), depth: depth + 1 })
        for (let cell = cells - 1; cell >= 0; cell -= 1) waiting.push({ page: view.getUint32(at(cell)), depth: depth + 1 })
        continue
      }
      for (let cell = 0; cell < cells; cell += 1) {
        let row: Row
        try {
          row = rowAt(database, once, data, at(cell))
          if (row.id <= last) throw refuse(`has row ${row.id} after row ${last}`)
          last = row.id
        } catch (error) {
          if (!(error instanceof ServiceError)) throw error
          damaged(error.message)
          continue
        }
        yield row
      }
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code !== 'invalid-image') throw error
      damaged(error.message)
    }
  }
}

/** Source: "Database File Format", section 1.6, "B-tree Pages": how much of a payload stays in its cell. */
function rowAt(database: Database, once: PagesOnce, data: Uint8Array, at: number): Row {
  const page = data.subarray(0, database.usableBytes)
  const payload = varint(page, at)
  const id = varint(page, payload.end)
  const bytes = payload.value
  if (bytes > MAX_RECORD_BYTES || bytes > database.pages * database.usableBytes) throw refuse(`has a row of ${bytes} bytes`)
  const most = database.usableBytes - 35
  const least = Math.floor(((database.usableBytes - 12) * 32) / 255) - 23
  const whole = least + ((bytes - least) % (database.usableBytes - 4))
  const local = bytes <= most ? bytes : whole <= most ? whole : least
  const end = id.end + local
  if (end + (local < bytes ? 4 : 0) > page.length) throw refuse(`has a row of ${bytes} bytes that ends after its page`)
  async function* pieces(): AsyncGenerator<Uint8Array> {
    yield page.subarray(id.end, end)
    if (local === bytes) return
    for (let next = new DataView(page.buffer, page.byteOffset).getUint32(end); next !== 0; ) {
      const more = await database.read(once.use(next))
      next = new DataView(more.buffer, more.byteOffset).getUint32(0)
      yield more.subarray(4, database.usableBytes)
    }
  }
  return { id: id.value, record: chained(bytes, pieces()) }
}

/** At most 9 bytes, 7 bits each and the last 8. A value beyond 2^53 is refused: nothing here can be as large. */
function varint(data: Uint8Array, at: number): { value: number; end: number } {
  let value = 0
  for (let index = 0; index < 9; index += 1) {
    const byte = data[at + index]
    if (byte === undefined) throw refuse('has a number that ends after its page', 'truncated')
    value = index === 8 ? value * 256 + byte : value * 128 + (byte & 0x7f)
    if (value > Number.MAX_SAFE_INTEGER) throw refuse('has a number of 2^53 or more')
    if (index === 8 || byte < 0x80) return { value, end: at + index + 1 }
  }
  throw refuse('has a number without an end')
}

/** The serial types of a record and where each value begins. */
async function columnsOf(record: Blob): Promise<{ type: number; start: number; bytes: number }[]> {
  const front = await record.prefix(Math.min(record.bytes, MAX_RECORD_HEAD_BYTES))
  const { value: headBytes, end } = varint(front, 0)
  if (headBytes > front.length || headBytes < end) throw refuse(`has a row whose header has ${headBytes} bytes`)
  const columns: { type: number; start: number; bytes: number }[] = []
  let start = headBytes
  for (let at = end; at < headBytes; ) {
    const type = varint(front.subarray(0, headBytes), at)
    const count = widthOf(type.value)
    columns.push({ type: type.value, start, bytes: count })
    start += count
    at = type.end
  }
  if (start > record.bytes) throw refuse(`has a row of ${record.bytes} bytes whose columns have ${start}`)
  return columns
}

const fixedWidths: readonly number[] = [0, 1, 2, 3, 4, 6, 8, 8, 0, 0]

function widthOf(type: number): number {
  const width = type >= 12 ? Math.floor((type - 12) / 2) : fixedWidths[type]
  if (width === undefined) throw refuse(`has a column of type ${type}`)
  return width
}

async function columnBlob(record: Blob, index: number): Promise<Blob> {
  const column = (await columnsOf(record))[index]
  if (!column || column.type < 12 || column.type % 2 !== 0) throw refuse(`has a row whose column ${index} is no blob`)
  return without(column.start, record, column.bytes)
}

/** Texts and whole numbers; null for what is neither. */
async function textColumns(record: Blob): Promise<(string | number | null)[]> {
  const columns = await columnsOf(record)
  const values: (string | number | null)[] = []
  for (const { type, start, bytes: count } of columns) {
    const isText = type >= 13 && type % 2 === 1
    const isNumber = type >= 1 && type <= 4
    if (!isText && !isNumber) {
      values.push(type === 8 ? 0 : type === 9 ? 1 : null)
      continue
    }
    if (start + count > MAX_SCHEMA_BYTES) throw refuse(`has a table whose definition has ${start + count} bytes`)
    const value = Buffer.from((await record.prefix(start + count)).subarray(start))
    values.push(isText ? value.toString('utf8') : value.readUIntBE(0, count))
  }
  return values
}
