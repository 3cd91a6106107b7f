import { ServiceError } from '../../base/errors.ts'
import type { FirstRead } from '../../disk/filters/record-reads.ts'
import type { Catalog, StoredDocument } from '../../store/catalog/catalog.ts'
import {
  type BootEntry,
  decodeBootRecord,
  encodeBootRecord,
  looksLikeBoot,
  PREFIX_BYTES,
} from '../../store/content/boot-record.ts'
import { hexOf } from '../../store/content/digests.ts'
import type { LeasedImage } from '../leases/lease.ts'
import type { ImagePorts } from '../ports.ts'
import { recordedManifests } from '../recorded-manifests.ts'
import { ChunkDigests } from './chunk-digests.ts'

/**
 * How machines start from an image: in which order they read its chunks. A record belongs to a manifest and the project that owned the image,
 * since a record that others left would tell what they have. An image without one gets that of the image that is most like it, among those
 * that its owner has and those that everybody may see; of it, what holds for this image too.
 */
interface Stored {
  readonly manifest: string
  readonly owner: string | null
  readonly imageId: string
  /** As `encodeBootRecord` makes it, in base64. */
  readonly record: string
  /** Taken over from the image below: good until a start of this one is recorded. */
  readonly isInherited?: true
  /** Milliseconds since 1970. */
  readonly recordedAt: number
}

type BootedImage = Pick<LeasedImage, 'id' | 'owner' | 'manifest'>
type Ports = Pick<ImagePorts, 'catalog' | 'chunks' | 'now'>

export interface BootRecord {
  readonly entries: readonly BootEntry[]
  /** Made of this image, not of one that is like it. */
  readonly isOwn: boolean
}

const KIND = 'boot-record'
/** Where to find records by what they begin with: the key is the digest of a chunk and the key of the record. */
const START_KIND = 'boot-record-start'
/** Of a record, the first so many chunks lead to it. */
const START_CHUNKS = 32
/** Of an image without a record, the first so many chunks are looked up: boot loader and the beginnings of file systems. */
const PROBED_CHUNKS = 64
const PROBED_WITHIN = 512
/** Records that are compared with an image. */
const MAX_CANDIDATES = 16
/** Less in common is no help. */
const LEAST_SHARE = 0.25
const PAGE = 500

const keyOf = (manifest: string, owner: string | null): string => `${manifest} ${owner ?? ''}`

/** @returns undefined where there is none, and none that helps. @throws ServiceError `not-found`, `corrupt` */
export async function findBootRecord(ports: Ports, image: LeasedImage): Promise<BootRecord | undefined> {
  const { catalog, chunks } = ports
  const own = await catalog.documents.get<Stored>(KIND, keyOf(image.manifest, image.owner))
  if (own) return { entries: entriesOf(own.body), isOwn: own.body.isInherited !== true }
  const digests = await ChunkDigests.open(chunks, image.manifest)
  let best: readonly BootEntry[] = []
  for (const candidate of await candidatesFor(catalog, image, digests)) {
    const all = entriesOf(candidate)
    const matching = await matchingOf(all, digests)
    if (matching.length > best.length && matching.length >= LEAST_SHARE * all.length) best = matching
  }
  return best.length > 0 ? { entries: best, isOwn: false } : undefined
}

/**
 * Keeps a record that a host made, unless there is one.
 * @param mayReplace whoever owns the image may make it anew
 * @throws ServiceError `invalid-request` where it names chunks that the image has not; `conflict` where there is one
 */
export async function putBootRecord(ports: Ports, image: LeasedImage, record: Uint8Array, mayReplace: boolean): Promise<void> {
  const entries = decodeBootRecord(record)
  const digests = await ChunkDigests.open(ports.chunks, image.manifest)
  const matching = await matchingOf(entries, digests)
  if (entries.length === 0 || matching.length < entries.length) {
    throw new ServiceError(
      'invalid-request',
      `the boot record has ${entries.length} entries, ${matching.length} of which are chunks of this image: record it again`,
    )
  }
  if (!(await store(ports, image, entries, digests, mayReplace))) {
    throw new ServiceError('conflict', 'the image has a boot record; its owner may replace it')
  }
}

/** Keeps what was recorded here, unless it was no boot or there is a record. */
export async function saveFirstReads(ports: Ports, image: LeasedImage, reads: readonly FirstRead[]): Promise<void> {
  const digests = await ChunkDigests.open(ports.chunks, image.manifest)
  const entries: BootEntry[] = []
  for (const { unit, afterMs } of reads) {
    const digest = await digests.of(unit)
    if (digest) entries.push({ chunk: unit, afterMs, prefix: digest.subarray(0, PREFIX_BYTES) })
  }
  if (looksLikeBoot(entries.map(({ chunk }) => chunk))) await store(ports, image, entries, digests, false)
}

/**
 * Gives an image that was made on another one what holds for it of the other's record: it stays when the other is deleted, and whoever could
 * start machines from that one may know it.
 */
export async function inheritBootRecord(ports: Ports, below: LeasedImage, image: BootedImage): Promise<void> {
  const found = await findBootRecord(ports, below)
  if (!found) return
  const digests = await ChunkDigests.open(ports.chunks, image.manifest)
  const matching = await matchingOf(found.entries, digests)
  if (matching.length >= LEAST_SHARE * found.entries.length) await store(ports, image, matching, digests, false, true)
}

/** Ends records whose manifest no image and no lease names any more; before a collection. @returns how many */
export async function sweepBootRecords(catalog: Catalog): Promise<number> {
  const gone = new Map<string, Set<string>>() // keys by manifest
  for await (const { key, body } of allRecords(catalog)) {
    const keys = gone.get(body.manifest) ?? new Set()
    gone.set(body.manifest, keys.add(key))
  }
  if (gone.size === 0) return 0
  for await (const { manifest } of recordedManifests(catalog)) gone.delete(manifest)
  const keys = [...gone.values()].flatMap((each) => [...each])
  for (const key of keys) {
    await catalog.write(async ({ documents }) => {
      await documents.deleteWhere(START_KIND, { name: 'record', value: key })
      await documents.delete(KIND, key)
    })
  }
  return keys.length
}

/** @returns false: there is one, and it stays */
async function store(
  { catalog, now }: Ports,
  { manifest, owner, id }: BootedImage,
  entries: readonly BootEntry[],
  digests: ChunkDigests,
  mayReplace: boolean,
  isInherited = false,
): Promise<boolean> {
  const key = keyOf(manifest, owner)
  const record = Buffer.from(encodeBootRecord(entries)).toString('base64')
  const starts = new Set<string>()
  for (const { chunk } of entries.slice(0, START_CHUNKS)) starts.add(hexOf((await digests.of(chunk))!))
  return catalog.write(async ({ documents }) => {
    const before = await documents.get<Stored>(KIND, key)
    const isWorthMore = before && (isInherited || before.body.isInherited !== true)
    if (isWorthMore && !mayReplace) return false
    const body: Stored = { manifest, owner, imageId: id, record, recordedAt: now(), ...(isInherited ? { isInherited } : {}) }
    await documents.put(KIND, key, body, { expect: before?.version ?? 0 })
    await documents.deleteWhere(START_KIND, { name: 'record', value: key })
    for (const start of starts) await documents.put(START_KIND, `${start} ${key}`, {}, { indexes: { record: key } })
    return true
  })
}

/** Those of images that whoever owns this one may know of. */
async function candidatesFor(catalog: Catalog, image: LeasedImage, digests: ChunkDigests): Promise<readonly Stored[]> {
  const found = new Map<string, Stored>()
  const looked = new Set<string>()
  let probed = 0
  for (let chunk = 0; chunk < Math.min(PROBED_WITHIN, digests.count) && probed < PROBED_CHUNKS; chunk += 1) {
    const digest = await digests.of(chunk)
    if (!digest) continue
    probed += 1
    const prefix = `${hexOf(digest)} `
    for (const { key } of await catalog.documents.list(START_KIND, { prefix, limit: MAX_CANDIDATES })) {
      const recordKey = key.slice(prefix.length)
      if (looked.has(recordKey) || found.size >= MAX_CANDIDATES) continue
      looked.add(recordKey)
      const stored = await catalog.documents.get<Stored>(KIND, recordKey)
      if (stored && (await mayKnow(catalog, image, stored.body))) found.set(recordKey, stored.body)
    }
  }
  return [...found.values()]
}

async function mayKnow({ images }: Catalog, { owner }: LeasedImage, record: Stored): Promise<boolean> {
  if (owner !== null && record.owner === owner) return true
  const image = await images.get(record.imageId)
  return image?.status === 'active' && image.visibility === 'public'
}

/** Entries that hold for the file with these digests. */
async function matchingOf(entries: readonly BootEntry[], digests: ChunkDigests): Promise<readonly BootEntry[]> {
  const matching: BootEntry[] = []
  for (const entry of entries) {
    const digest = await digests.of(entry.chunk)
    if (digest && Buffer.compare(digest.subarray(0, PREFIX_BYTES), entry.prefix) === 0) matching.push(entry)
  }
  return matching
}

const entriesOf = ({ record }: Stored): readonly BootEntry[] => decodeBootRecord(Buffer.from(record, 'base64'))

async function* allRecords({ documents }: Catalog): AsyncGenerator<StoredDocument<Stored>> {
  for (let after: string | undefined; ; ) {
    const page: readonly StoredDocument<Stored>[] = await documents.list<Stored>(KIND, {
      ...(after === undefined ? {} : { after }),
      limit: PAGE,
    })
    yield* page
    after = page.at(-1)?.key
    if (after === undefined || page.length < PAGE) return
  }
}
