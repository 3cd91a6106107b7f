import { isServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { crcOf } from '../content/codec.ts'
import { countOf, digestAt, digestOfManifest, hexOf, joinDigests, keyAt, keyOf } from '../content/digests.ts'
import type { JobOptions, Live, StoreFault } from './chunk-store.ts'
import { endOf, readBatch } from './distrust.ts'
import type { Engine } from './engine.ts'
import { cancelledError } from './gather.ts'
import type { ChunkColumns, PackRow } from './index/chunk-index.ts'
import { liveManifestOf } from './live-manifest.ts'
import { HEADER_BYTES, hasPackHeader, PACK_PREFIX, type PackEntry, packKey } from './pack-format.ts'
import { packOfKey, readFooter } from './reconcile.ts'
import { walkManifest } from './walk-manifest.ts'
import type { StoredChunk } from './workers/jobs.ts'

const BATCH_BYTES = MiB

/** A fault as it is found, before it is known whom it touches. */
interface Finding {
  readonly kind: StoreFault['kind']
  readonly message: string
  readonly blob?: string
  /** Chunks that it touches. */
  readonly digests: readonly Uint8Array[]
  readonly manifests: Set<string>
}
type CheckOptions = JobOptions & { readonly readData?: boolean }

/**
 * Reads every pack, compares it with the index, then walks the live manifests once to say whom each fault touches; see
 * `ChunkStore.check`. A pack whose footer is damaged can still be read by way of the index: its fault names the manifests that
 * a rebuild of the index would lose. What is damaged is distrusted from now on, and what was distrusted and turns out right is
 * trusted again. What the disk does not give is a fault, but no damage: nothing is distrusted for it, and the packs after it are
 * read. A second copy that nothing reads is no fault. Memory grows with the faults, not with the store.
 */
export async function* check(
  engine: Engine,
  live: () => AsyncIterable<Live>,
  options: CheckOptions = {},
): AsyncGenerator<StoreFault> {
  const findings: Finding[] = []
  for await (const finding of checkPacks(engine, options)) findings.push(finding)
  for await (const finding of checkManifests(engine, live, findings, options)) findings.push(finding)
  for (const { kind, message, blob, digests, manifests } of findings) {
    yield {
      kind,
      message,
      ...(blob === undefined ? {} : { blob }),
      ...(digests.length === 1 ? { digest: hexOf(digests[0]!) } : {}),
      manifests: [...manifests].sort(),
    }
  }
}

const finding = (kind: Finding['kind'], message: string, digests: readonly Uint8Array[], blob?: string): Finding => ({
  kind,
  message,
  digests,
  ...(blob === undefined ? {} : { blob }),
  manifests: new Set(),
})

async function* checkPacks(engine: Engine, { signal, onProgress, readData = true }: CheckOptions): AsyncGenerator<Finding> {
  const { blobs, index } = engine
  const rows = await index.packs()
  for (const [done, row] of rows.entries()) {
    if (signal?.aborted) throw cancelledError()
    if (row.state !== 'writing') yield* ignoreRemoved(engine, row.pack, checkPack(engine, row, readData))
    onProgress?.({ phase: 'packs', done: done + 1, total: rows.length })
  }
  const known = new Set(rows.map(({ pack }) => pack))
  for await (const key of blobs.list(PACK_PREFIX)) {
    const pack = packOfKey(key)
    if (pack === undefined) yield finding('index-mismatch', `Blob ${key} is no pack of this store: move it away.`, [], key)
    else if (!known.has(pack) && !(await isKnown(engine, pack)))
      yield finding(
        'damaged-footer',
        `Pack ${pack} is not in the index, as its footer cannot be read: restore it from a backup, or delete it.`,
        [],
        key,
      )
  }
}

const isKnown = async ({ index }: Engine, pack: string) => (await index.packs()).some((row) => row.pack === pack)

/** A collector may remove a pack while it is being read; a disk may not give it: what was found in it by then is kept. */
async function* ignoreRemoved(engine: Engine, pack: string, found: AsyncIterable<Finding>): AsyncGenerator<Finding> {
  const findings: Finding[] = []
  try {
    for await (const one of found) findings.push(one)
  } catch (error) {
    if (isServiceError(error, 'unavailable')) findings.push(await unreadPack(engine, pack, error))
    else if (!isServiceError(error, 'not-found') || (await isKnown(engine, pack))) throw error
  }
  if (findings.length > 0 && (await isKnown(engine, pack))) yield* findings
}

async function unreadPack({ index }: Engine, pack: string, { message }: Error): Promise<Finding> {
  const { digests } = await index.chunksOfPack(pack)
  return finding(
    'unreadable',
    `Pack ${pack} cannot be read now (${message}): see whether its disk answers, then check again; if it stays so, restore the pack from a backup.`,
    Array.from({ length: countOf(digests) }, (_, chunk) => digestAt(digests, chunk)),
    packKey(pack),
  )
}

async function* checkPack(engine: Engine, row: PackRow, readData: boolean): AsyncGenerator<Finding> {
  const { blobs, index } = engine
  const { pack } = row
  const key = packKey(pack)
  const columns = await index.chunksOfPack(pack)
  const all = Array.from({ length: countOf(columns.digests) }, (_, chunk) => digestAt(columns.digests, chunk))
  const damagedPack = async (kind: Finding['kind'], message: string): Promise<Finding[]> => {
    if (all.length > 0) await index.distrust(pack, columns.digests)
    return all.length === 0 ? [] : [finding(kind, message, all, key)] // nothing is read from it, and the next collection removes it
  }
  let entries: readonly PackEntry[] | undefined
  let isSound = false
  try {
    entries = (await readFooter(blobs, pack)).entries
    isSound = hasPackHeader(await blobs.read(key, 0, HEADER_BYTES))
    if (!isSound)
      yield* await damagedPack(
        'damaged-footer',
        `The first bytes of pack ${pack} are damaged; its chunks can be read: collect, which moves them to another pack.`,
      )
    yield* compare(pack, entries, columns)
  } catch (error) {
    if (isServiceError(error, 'not-found'))
      return yield* await damagedPack(
        'missing-blob',
        `Pack ${pack} is gone: restore it from a backup, or upload the images again.`,
      )
    if (!isServiceError(error, 'corrupt')) throw error
    yield* await damagedPack(
      'damaged-footer',
      `Pack ${pack}: ${error.message} Its chunks are found by way of the index, and would be lost if that were rebuilt: collect, which moves them to another pack.`,
    )
  }
  if (!readData) {
    if (isSound) yield* knownDamage(pack, await index.distrusted(pack))
    return
  }
  const whole = yield* checkEntries(engine, pack, entries ?? entriesOf(columns))
  if (isSound && row.isSuspect) await index.trust(pack, joinDigests(whole))
}

function* knownDamage(pack: string, distrusted: Uint8Array): Generator<Finding> {
  for (let chunk = 0; chunk < countOf(distrusted); chunk += 1)
    yield damagedChunk(pack, digestAt(distrusted, chunk), 'was found damaged')
}

const damagedChunk = (pack: string, digest: Uint8Array, problem: string): Finding =>
  finding(
    'damaged-chunk',
    `Chunk ${hexOf(digest)} in pack ${pack} ${problem}: restore the pack from a backup, or upload one of the images that use it again, which mends all of them.`,
    [digest],
    packKey(pack),
  )

/** What the index says of a pack, where its footer cannot be read; no CRC. */
const entriesOf = (columns: ChunkColumns): Omit<PackEntry, 'crc'>[] =>
  Array.from({ length: countOf(columns.digests) }, (_, chunk) => ({
    digest: digestAt(columns.digests, chunk),
    offset: columns.offsets[chunk]!,
    storedBytes: columns.storedBytes[chunk]!,
    plainBytes: columns.plainBytes[chunk]!,
    kind: columns.kinds[chunk]!,
    codec: columns.codecs[chunk]!,
  }))

/** The index may know fewer chunks of a pack than its footer, as others have moved or gone; never others. */
function* compare(pack: string, entries: readonly PackEntry[], columns: ChunkColumns): Generator<Finding> {
  const byKey = new Map(entries.map((entry) => [keyOf(entry.digest), entry]))
  for (let chunk = 0; chunk < countOf(columns.digests); chunk += 1) {
    const entry = byKey.get(keyAt(columns.digests, chunk))
    const same =
      entry?.offset === columns.offsets[chunk] &&
      entry?.storedBytes === columns.storedBytes[chunk] &&
      entry?.plainBytes === columns.plainBytes[chunk] &&
      entry?.codec === columns.codecs[chunk]
    if (same) continue
    const digest = digestAt(columns.digests, chunk)
    const message = `The index and pack ${pack} disagree about chunk ${hexOf(digest)}: rebuild the index.`
    yield finding('index-mismatch', message, [digest], packKey(pack))
  }
}

type Entry = Omit<PackEntry, 'crc'> & { readonly crc?: number }

/** @returns digests of the chunks that are as they should be */
async function* checkEntries(
  { blobs, index, workers }: Engine,
  pack: string,
  entries: readonly Entry[],
): AsyncGenerator<Finding, Uint8Array[]> {
  const whole: Uint8Array[] = []
  for (let next = 0; next < entries.length; ) {
    const first = next
    const from = entries[first]!.offset
    do next += 1
    while (next < entries.length && endOf(entries[next]!) - from <= BATCH_BYTES)
    const batch = entries.slice(first, next)
    const { inputs, places } = await readBatch(blobs, pack, batch)
    const readable = batch.flatMap((entry, at) => (places[at] ? [{ entry, ...places[at] }] : []))
    const chunks = readable.map(({ entry, input, at }): StoredChunk => ({ ...entry, input, at, to: 0 }))
    const { damaged } = await workers.run({ kind: 'decode', inputs, chunks })
    const isWhole = ({ entry: { storedBytes, crc }, input, at }: (typeof readable)[number], place: number): boolean =>
      // a bit of the frame that no decoder looks at leaves the digest right: the CRC finds it
      !damaged.includes(place) && (crc === undefined || crcOf(inputs[input]!.subarray(at, at + storedBytes)) === crc)
    const good = new Set(readable.filter(isWhole).map(({ entry }) => entry))
    for (const entry of batch) {
      if (good.has(entry)) {
        whole.push(entry.digest)
        continue
      }
      const { packs } = await index.locate(entry.digest)
      if (packs.length > 0 && packs[0] !== pack) continue // it came again since, or was moved: nothing reads this copy
      await index.distrust(pack, entry.digest)
      yield damagedChunk(pack, entry.digest, 'is damaged')
    }
  }
  return whole
}

/** Walks the live manifests: adds each to the findings that it reaches, and finds what is missing altogether. */
async function* checkManifests(
  engine: Engine,
  live: () => AsyncIterable<Live>,
  findings: readonly Finding[],
  { signal, onProgress }: CheckOptions,
): AsyncGenerator<Finding> {
  const touched = new Map<string, Finding[]>()
  for (const one of findings)
    for (const digest of one.digests) touched.set(keyOf(digest), [...(touched.get(keyOf(digest)) ?? []), one])
  const missing = new Map<string, Finding>()
  const unread = new Map<string, Finding>()
  const names = new Set<string>()
  for await (const one of live()) {
    const { manifest: name } = liveManifestOf(one)
    if (signal?.aborted) throw cancelledError()
    if (names.has(name)) continue
    names.add(name)
    const visit = async (digests: Uint8Array) => {
      const ids = await engine.index.chunkIds(digests)
      for (const [index, id] of ids.entries()) {
        const digest = digestAt(digests, index)
        const key = keyOf(digest)
        for (const one of touched.get(key) ?? []) one.manifests.add(name)
        if (id > 0) continue
        const known = missing.get(key) ?? finding('missing-chunk', `Chunk ${hexOf(digest)} is in no pack.`, [digest.slice()])
        known.manifests.add(name)
        missing.set(key, known)
      }
    }
    try {
      await visit(digestOfManifest(name))
      const alreadyFound = () => undefined // the page is damaged or missing: the visit to the root's children says so
      for await (const part of walkManifest(engine.reader, name, async () => true, alreadyFound)) await visit(part.children)
    } catch (error) {
      if (isServiceError(error, 'unavailable')) {
        const message = `Manifest ${name} cannot be read now (${error.message}): see whether the disk answers, then check again.`
        unread.set(name, finding('unreadable', message, []))
        continue
      }
      if (!isServiceError(error, 'corrupt') && !isServiceError(error, 'not-found')) throw error
      const one = finding('missing-manifest', `Manifest ${name} cannot be read: ${error.message}`, [])
      one.manifests.add(name)
      yield one
    }
    onProgress?.({ phase: 'manifests', done: names.size, total: 0 })
  }
  // a manifest whose pages are damaged cannot be walked to the end, but the index remembers what it used
  for (const one of [...findings, ...missing.values()])
    for (const user of one.digests.length === 0 ? [] : await engine.index.manifestsUsing(joinDigests(one.digests)))
      if (names.has(hexOf(user))) one.manifests.add(hexOf(user))
  yield* missing.values()
  for (const [name, one] of unread) {
    if (findings.some(({ kind, manifests }) => kind === 'unreadable' && manifests.has(name))) continue // its pack says so
    one.manifests.add(name)
    yield one
  }
}
