import { ServiceError } from '../../../../base/errors.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { type Blob, chained, PagesOnce, type ReadHeaders, refuse, unsupported } from './blob.ts'

/**
 * `Packages` of Berkeley DB, a hash of package numbers and headers, in the byte order of who wrote it. Source: Berkeley DB, dbinc/db_page.h
 * ("Hash metadata page layout", "Page format"), versions 8 to 10.
 */
const MAGIC = 0x061561
const META_BYTES = 512
const PAGE_HEAD_BYTES = 26
const pageTypes = { hashUnsorted: 2, overflow: 7, hashMeta: 8, hash: 13 }
const itemTypes = { inPage: 1, overflow: 3 }
const OVERFLOW_ITEM_BYTES = 12
const CHECKSUM_FLAG = 1
const MAX_RECORD_BYTES = 2 ** 29
const MAX_PAGES = 2 ** 24

interface Database {
  readonly file: BlockSource
  readonly isLittle: boolean
  readonly pageBytes: number
  readonly buckets: number
  readonly spares: readonly number[]
  readonly once: PagesOnce
}

export function openBerkeley(file: BlockSource): ReadHeaders {
  return async function* (notes) {
    const database = await openHash(file)
    for (let bucket = 0; bucket < database.buckets; bucket += 1) {
      try {
        yield* entriesOf(database, bucket, notes)
      } catch (error) {
        if (!(error instanceof ServiceError) || error.code !== 'invalid-image') throw error
        notes.add(`${error.message}: packages of bucket ${bucket} are missing`)
      }
    }
  }
}

async function openHash(file: BlockSource): Promise<Database> {
  if (file.size < META_BYTES) throw refuse(`has ${file.size} bytes and no first page`, 'truncated')
  const bytes = await file.read(0, META_BYTES)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const isLittle = view.getUint32(12, true) === MAGIC
  if (!isLittle && view.getUint32(12, false) !== MAGIC) throw refuse('is no hash of Berkeley DB: its magic is another')
  const at = (offset: number) => view.getUint32(offset, isLittle)
  const [version, pageBytes, lastPage, buckets] = [at(16), at(20), at(32), at(72) + 1]
  if (version < 8 || version > 10) throw unsupported(`is a hash of version ${version}, and 8 to 10 are known`)
  if (bytes[24] !== 0) throw unsupported('is encrypted')
  if (bytes[25] !== pageTypes.hashMeta) throw refuse(`has a first page of type ${bytes[25]}, not of a hash`)
  if ((bytes[26]! & CHECKSUM_FLAG) !== 0) throw unsupported('has checksums in its pages, which rpm never makes')
  if (pageBytes < META_BYTES || pageBytes > 65536 || (pageBytes & (pageBytes - 1)) !== 0)
    throw refuse(`has pages of ${pageBytes} bytes, not of 512 to 65536`)
  const pages = Math.floor(file.size / pageBytes)
  if (lastPage >= pages) throw refuse(`says that its last page is ${lastPage}, and has ${pages}`, 'truncated')
  if (pages > MAX_PAGES) throw new ServiceError('too-large', `the rpm database has ${pages} pages, more than ${MAX_PAGES}`)
  if (buckets > lastPage) throw refuse(`says that it has ${buckets} buckets in ${lastPage} pages`)
  const spares = Array.from({ length: 32 }, (_, index) => at(96 + index * 4))
  return { file, isLittle, pageBytes, buckets, spares, once: new PagesOnce(1, lastPage + 1) }
}

interface Page {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly next: number
}

async function pageAt({ file, isLittle, pageBytes, once }: Database, number: number, types: readonly number[]): Promise<Page> {
  const bytes = await file.read(once.use(number) * pageBytes, pageBytes)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(8, isLittle) !== number)
    throw refuse(`has page ${view.getUint32(8, isLittle)} where page ${number} should be`)
  if (!types.includes(bytes[25]!)) throw refuse(`has page ${number} of type ${bytes[25]}, not of ${types.join(' or ')}`)
  return { bytes, view, next: view.getUint32(16, isLittle) }
}

/** Pairs of a key and a header, over the pages of a bucket. The key 0 is rpm's own count. */
async function* entriesOf(
  database: Database,
  bucket: number,
  notes: { add(note: string): void },
): AsyncGenerator<{ what: string; blob: Blob }> {
  const { isLittle, pageBytes, spares } = database
  const first = bucket + spares[bucket === 0 ? 0 : 32 - Math.clz32(bucket)]!
  for (let number = first; number !== 0; ) {
    const page = await pageAt(database, number, [pageTypes.hash, pageTypes.hashUnsorted])
    const items = page.view.getUint16(20, isLittle)
    if (items > (pageBytes - PAGE_HEAD_BYTES) / 2) throw refuse(`has page ${number} with ${items} entries`)
    let end = pageBytes
    const spanOf = (item: number): Uint8Array => {
      const start = page.view.getUint16(PAGE_HEAD_BYTES + item * 2, isLittle)
      if (start < PAGE_HEAD_BYTES + items * 2 || start >= end)
        throw refuse(`has page ${number} whose entry ${item} is at ${start}, and not before ${end}`)
      const span = page.bytes.subarray(start, end)
      end = start
      return span
    }
    for (let item = 0; item + 1 < items; item += 2) {
      const [key, value] = [spanOf(item), spanOf(item + 1)]
      if (key[0] !== itemTypes.inPage || key.length !== 5) throw refuse(`has page ${number} whose key ${item} is no number`)
      const id = new DataView(key.buffer, key.byteOffset + 1, 4).getUint32(0, isLittle)
      if (id === 0) continue
      try {
        yield { what: `package ${id}`, blob: blobOf(database, value) }
      } catch (error) {
        if (!(error instanceof ServiceError)) throw error
        notes.add(`package ${id}: ${error.message}`)
      }
    }
    number = page.next
  }
}

function blobOf(database: Database, value: Uint8Array): Blob {
  if (value[0] === itemTypes.inPage) return { bytes: value.length - 1, prefix: async (count) => within(value.subarray(1), count) }
  if (value[0] !== itemTypes.overflow || value.length !== OVERFLOW_ITEM_BYTES)
    throw refuse(`has a value of type ${value[0]} and ${value.length} bytes`)
  const view = new DataView(value.buffer, value.byteOffset, value.length)
  const [first, bytes] = [view.getUint32(4, database.isLittle), view.getUint32(8, database.isLittle)]
  if (bytes > MAX_RECORD_BYTES || bytes > database.file.size) throw refuse(`has a value of ${bytes} bytes`)
  return chained(bytes, overflow(database, first))
}

function within(bytes: Uint8Array, count: number): Uint8Array {
  if (count > bytes.length) throw refuse(`has a value of ${bytes.length} bytes where ${count} are wanted`, 'truncated')
  return bytes.subarray(0, count)
}

async function* overflow(database: Database, first: number): AsyncGenerator<Uint8Array> {
  for (let number = first; number !== 0; ) {
    const page = await pageAt(database, number, [pageTypes.overflow])
    const bytes = page.view.getUint16(22, database.isLittle)
    if (bytes > database.pageBytes - PAGE_HEAD_BYTES) throw refuse(`has page ${number} with ${bytes} bytes of a value`)
    yield page.bytes.subarray(PAGE_HEAD_BYTES, PAGE_HEAD_BYTES + bytes)
    number = page.next
  }
}
