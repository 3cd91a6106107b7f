import { ServiceError } from '../../../../base/errors.ts'
import { MiB } from '../../../../base/units.ts'
import type { Package } from '../package.ts'
import { type Blob, refuse } from './blob.ts'

/**
 * A package's header as rpm keeps it: two big-endian counts, entries of 16 bytes, and the data that they point into. Source: rpm,
 * docs/manual/format_header.md; limits of lib/header.c, HEADER_TAGS_MAX and HEADER_DATA_MAX.
 */
const COUNTS_BYTES = 8
const ENTRY_BYTES = 16
const MAX_ENTRIES = 0xffff
const MAX_DATA_BYTES = 256 * MiB
/** Of what is read here; names and versions have tens. */
const MAX_TEXT_BYTES = 4096
/** How far into a header is read: that of 100,000 files has 10 MiB. */
const MAX_READ_BYTES = 32 * MiB

const tags = {
  region: 63,
  name: 1000,
  version: 1001,
  release: 1002,
  epoch: 1003,
  size: 1009,
  arch: 1022,
  source: 1044,
  longSize: 5009,
}
const REGION_BYTES = 16
const types = { int32: 4, int64: 5, text: 6, bytes: 7, translated: 9 }
/** Bytes of a value by type: null, char, int8, int16, int32, int64, string, bin, string array, i18n string. */
const widths: readonly number[] = [0, 1, 1, 2, 4, 8, 1, 1, 1, 1]

interface Entry {
  readonly type: number
  readonly offset: number
  readonly count: number
}

/** What a header says of its package. @throws ServiceError `invalid-image` where it is damaged */
export async function readHeader(blob: Blob, path: string): Promise<Package> {
  const { entries, dataBytes, start } = await indexOf(blob)
  const at = async (entry: Entry, bytes: number): Promise<Buffer> => {
    const [from, end] = [start + entry.offset, start + entry.offset + bytes]
    if (end > MAX_READ_BYTES) throw refuse(`has a package whose name, version or source are ${from} bytes into its header`)
    return bufferOf(await blob.prefix(end)).subarray(from)
  }
  const text = async (tag: number): Promise<string | null> => {
    const entry = entries.get(tag)
    if (!entry) return null
    if (entry.type !== types.text && entry.type !== types.translated)
      throw refuse(`has tag ${tag} of type ${entry.type}, not a string`)
    const bytes = await at(entry, Math.min(MAX_TEXT_BYTES, dataBytes - entry.offset))
    const end = bytes.indexOf(0)
    if (end < 0) throw refuse(`has tag ${tag} without the NUL that ends it`)
    return bytes.toString('utf8', 0, end)
  }
  const number = async (tag: number): Promise<number | null> => {
    const entry = entries.get(tag)
    if (!entry) return null
    if (entry.type === types.int32) return (await at(entry, 4)).readUInt32BE()
    if (entry.type !== types.int64) throw refuse(`has tag ${tag} of type ${entry.type}, not a number`)
    const value = Number((await at(entry, 8)).readBigUInt64BE())
    return Number.isSafeInteger(value) ? value : null
  }
  const [name, version, release] = [await text(tags.name), await text(tags.version), await text(tags.release)]
  if (!name || !version || !release) throw refuse(`has a package without a name, a version or a release: ${name ?? ''}`)
  const epoch = await number(tags.epoch)
  const plain = `${version}-${release}`
  return {
    kind: 'rpm',
    name,
    version: epoch === null ? plain : `${epoch}:${plain}`,
    architecture: await text(tags.arch),
    source: sourceOf(await text(tags.source), name, plain),
    installedBytes: (await number(tags.longSize)) ?? (await number(tags.size)),
    path,
  }
}

const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)

/** The entries that are wanted; of two with one tag the later, which rpm added to what the package brought. */
async function indexOf(blob: Blob): Promise<{ entries: ReadonlyMap<number, Entry>; dataBytes: number; start: number }> {
  const counts = bufferOf(await blob.prefix(COUNTS_BYTES))
  const [many, dataBytes] = [counts.readUInt32BE(0), counts.readUInt32BE(4)]
  if (many === 0 || many > MAX_ENTRIES) throw refuse(`has a header of ${many} entries, and at most ${MAX_ENTRIES} may be`)
  if (dataBytes > MAX_DATA_BYTES)
    throw refuse(`has a header with ${dataBytes} bytes of data, and at most ${MAX_DATA_BYTES} may be`)
  const start = COUNTS_BYTES + many * ENTRY_BYTES
  if (start + dataBytes !== blob.bytes) throw refuse(`has a header of ${blob.bytes} bytes that says it has ${start + dataBytes}`)
  const index = bufferOf(await blob.prefix(start))
  const entries = new Map<number, Entry>()
  for (let at = COUNTS_BYTES; at < start; at += ENTRY_BYTES) {
    const tag = index.readUInt32BE(at)
    const entry = { type: index.readUInt32BE(at + 4), offset: index.readUInt32BE(at + 8), count: index.readUInt32BE(at + 12) }
    const width = widths[entry.type]
    if (width === undefined || entry.count === 0 || entry.offset + width * entry.count > dataBytes)
      throw refuse(`has tag ${tag} of type ${entry.type} with ${entry.count} values at ${entry.offset} of ${dataBytes} bytes`)
    if (entry.offset % width !== 0) throw refuse(`has tag ${tag} at ${entry.offset}, which is not aligned`)
    if (tag === tags.region && (entry.type !== types.bytes || entry.count !== REGION_BYTES))
      throw refuse(`has a region of type ${entry.type} and ${entry.count} bytes, not of ${REGION_BYTES}`)
    if (isWanted(tag)) entries.set(tag, entry)
  }
  return { entries, dataBytes, start }
}

const wantedTags = new Set(Object.values(tags))
const isWanted = (tag: number): boolean => wantedTags.has(tag)

/** `bash-5.1-2.fc34.src.rpm`: name, version, release. */
function sourceOf(file: string | null, name: string, version: string): Package['source'] {
  const found = /^(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm$/.exec(file ?? '')
  if (!found) return null
  const source = { name: found[1]!, version: found[2]! }
  return source.name === name && source.version === version ? null : source
}

/** Whether an error is that of one package, and others can be read. */
export const isDamage = (error: unknown): error is ServiceError => error instanceof ServiceError && error.code === 'invalid-image'
