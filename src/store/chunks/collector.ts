import { isServiceError, ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { digestOfManifest, hexOf, keyOf } from '../content/digests.ts'
import { adoptManifest } from './adopt.ts'
import type { CollectReport, JobOptions, Live } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { cancelledError } from './gather.ts'
import type { ManifestRow } from './index/chunk-index.ts'
import { liveManifestOf } from './live-manifest.ts'
import { Marks } from './marks.ts'
import { packKey } from './pack-format.ts'
import { repack } from './repack.ts'
import { walkManifest } from './walk-manifest.ts'

/** An upload by chunks that nobody touched for so long is given up. The only age that the store looks at. */
const SESSION_IDLE_MS = 7 * 24 * 3600 * 1000
const CHUNKS_A_SWEEP = 4096

/**
 * Mark and sweep.
 *
 * *What is kept:* every chunk that a live manifest reaches (the marks, made by walking root, pages and entries), and every chunk
 * that has a ref at the moment of its removal (leases, sessions, ingests that ended meanwhile).
 *
 * *Why no chunk in use is lost:* rows that may go are listed before `live` is asked. A row that is committed by then had its
 * record committed before, so if `live` does not name it, nothing does. A row that is leased, or made later, is not on the list,
 * so its refs stay. A chunk goes in one transaction with the proof that it has no ref; whoever looks it up later finds nothing
 * and stores it anew.
 *
 * *What cannot be read now:* a manifest that the disk does not give cannot be marked. The refs of its row keep its chunks; where
 * a live manifest has no row, nothing is removed. A pack that cannot be rewritten stays, and all others have their turn.
 * @throws ServiceError `cancelled`; `unavailable` where something could not be read, after everything else was done
 */
export async function collect(
  engine: Engine,
  live: () => AsyncIterable<Live>,
  { signal, onProgress = () => undefined }: JobOptions = {},
): Promise<CollectReport> {
  const { index } = engine
  const assertGoesOn = () => {
    if (signal?.aborted) throw cancelledError()
  }
  for (const hold of engine.givenUp) {
    await index.abandon(hold)
    engine.givenUp.delete(hold)
  }
  await engine.writer.settle() // chunks of an ingest that failed a moment ago go with this collection
  const sessionsSince = Date.now() - SESSION_IDLE_MS
  const { lastChunk, manifests } = await index.candidates(sessionsSince)

  const marks = new Marks()
  const liveNames = new Set<string>()
  const unread: ServiceError[] = []
  const records: Records = new Map()
  const keep = async (name: string) => {
    const key = keyOf(digestOfManifest(name))
    if (liveNames.has(key)) return
    liveNames.add(key)
    const error = await markManifest(engine, name, marks)
    if (error) unread.push(error)
    onProgress({ phase: 'mark', done: liveNames.size, total: manifests.length })
    assertGoesOn()
  }
  for await (const one of live()) {
    const { manifest, owner, isRead } = liveManifestOf(one)
    const key = keyOf(digestOfManifest(manifest))
    if (!isRead) addRecord(records, key, owner)
    await keep(manifest)
  }
  const liveManifests = liveNames.size
  for (const name of engine.reading.keys()) await keep(name)
  if (unread[0]) await assertRows(engine, liveNames, unread[0])
  failpoint('collector:marked')

  const { restored, gone, foreign } = sortRows(manifests, records, (key) => liveNames.has(key), unread.length === 0)
  await index.restoreManifests(restored)
  while (await index.removeManifests(gone, sessionsSince)) assertGoesOn()

  let [chunksRemoved, after] = [0, 0]
  for (;;) {
    assertGoesOn()
    const ids = await index.unreferenced(after, lastChunk, CHUNKS_A_SWEEP)
    if (ids.length === 0) break
    after = ids.at(-1)!
    const removed = await index.removeChunks(ids.filter((id) => !marks.has(id)))
    chunksRemoved += removed.chunks
    onProgress({ phase: 'sweep', done: after, total: lastChunk })
  }
  engine.reader.forget()
  failpoint('collector:swept')

  const { moved: packsRewritten, unread: unreadPacks } = await repack(engine, assertGoesOn, onProgress)
  unread.push(...unreadPacks)
  failpoint('collector:repacked')
  const { packs: packsRemoved, bytes: bytesFreed } = await removeDeadPacks(engine, assertGoesOn)
  unread.push(...(await adoptRows(engine, records, foreign)))

  engine.counters.collections += 1
  engine.counters.bytesFreed += bytesFreed
  if (unread[0]) throw unreadError(unread[0], { unread: unread.length, chunksRemoved, bytesFreed, packsRemoved, packsRewritten })
  return { chunksRemoved, bytesFreed, packsRemoved, packsRewritten, liveManifests }
}

/** How many records name a manifest, by its key and their owner; undefined: nobody knows whose they are. */
type Records = Map<string, Map<string | undefined, number>>

function addRecord(records: Records, key: string, owner: string | undefined): void {
  const owners = records.get(key) ?? new Map<string | undefined, number>()
  records.set(key, owners.set(owner, (owners.get(owner) ?? 0) + 1))
}

/** A manifest by its key, and a project one of whose records names it. */
interface OwnerOf {
  readonly key: string
  readonly owner: string | undefined
}

/**
 * Every record has a row of its own, so as many rows of a manifest stay as records name it: those of the records' owners first,
 * of these the committed ones, then the youngest. A row too many is of a record that was deleted without a word to the store;
 * one too few, of a commit that was not told of.
 * @param isMarked false: refs alone keep what is in use, so no row of a live manifest goes
 * @returns `foreign`: records that have but the row of somebody else, as when an image was given to another project
 */
function sortRows(
  rows: readonly ManifestRow[],
  records: Records,
  isKept: (key: string) => boolean,
  isMarked: boolean,
): { restored: number[]; gone: number[]; foreign: OwnerOf[] } {
  const [restored, gone, foreign]: [number[], number[], OwnerOf[]] = [[], [], []]
  const left = new Map([...records].map(([key, owners]) => [key, new Map(owners)]))
  const take = (key: string, owner: string | undefined): boolean => {
    const count = left.get(key)?.get(owner) ?? 0
    if (count > 0) left.get(key)!.set(owner, count - 1)
    return count > 0
  }
  const stay = ({ hold, committed }: ManifestRow) => {
    if (!committed) restored.push(hold)
  }
  const rank = ({ committed, hold }: ManifestRow) => (committed ? hold : hold - Number.MAX_SAFE_INTEGER)
  const others: ManifestRow[] = []
  for (const row of [...rows].sort((a, b) => rank(b) - rank(a))) {
    if (row.digest && take(keyOf(row.digest), row.owner)) stay(row)
    else others.push(row)
  }
  for (const row of others) {
    const key = row.digest ? keyOf(row.digest) : ''
    const unmatched = [...(left.get(key) ?? [])].find(([, count]) => count > 0)
    if (unmatched) {
      const [owner] = unmatched
      take(key, owner)
      stay(row)
      if (owner !== undefined) foreign.push({ key, owner })
    } else if (!isKept(key) || (records.has(key) && isMarked)) gone.push(row.hold) // otherwise the next collection decides
  }
  return { restored, gone, foreign }
}

const unreadError = (cause: ServiceError, done: Readonly<Record<string, number>>): ServiceError =>
  new ServiceError(
    'unavailable',
    `A part of the store could not be read and was left as it is (${cause.message}); everything else was collected: see whether the disk answers, and run a check, which names the images that it touches.`,
    done,
    { cause },
  )

/** Where the marks have gaps, refs alone must keep every chunk in use. */
async function assertRows({ index }: Engine, liveNames: ReadonlySet<string>, unread: ServiceError): Promise<void> {
  for (const key of liveNames) if (!(await index.findManifest(digestOfKey(key)))) throw unread
}

const digestOfKey = (key: string): Uint8Array => new Uint8Array(Buffer.from(key, 'latin1'))

/**
 * A page that was marked before, by way of another manifest, has had its entries marked too.
 * @returns the error of a disk that does not give the manifest now: its marks have gaps, and those of others that share its pages
 */
async function markManifest({ index, reader }: Engine, name: string, marks: Marks): Promise<ServiceError | undefined> {
  const markNew = async (digests: Uint8Array): Promise<void> => {
    for (const id of await index.chunkIds(digests)) if (id > 0) marks.add(id)
  }
  const isNew = async (page: Uint8Array): Promise<boolean> => {
    const [id] = await index.chunkIds(page)
    return id === undefined || id === 0 || marks.add(id)
  }
  try {
    if (!(await isNew(digestOfManifest(name)))) return undefined
    // pages are marked one by one as they are walked: marking them with the root would make them look known
    for await (const part of walkManifest(reader, name, isNew, () => undefined)) {
      if (part.kind === 'page') await markNew(part.children)
    }
  } catch (error) {
    if (isServiceError(error, 'unavailable')) return error
    // a live manifest that cannot be read: `check` reports it; its refs, if it has a row, keep its chunks
    if (!isServiceError(error, 'corrupt') && !isServiceError(error, 'not-found')) throw error
  }
  return undefined
}

async function removeDeadPacks({ blobs, index }: Engine, assertGoesOn: () => void): Promise<{ packs: number; bytes: number }> {
  let [packs, bytes] = [0, 0]
  for (const row of await index.packs()) {
    if (row.state === 'writing' || row.liveChunks > 0) continue
    assertGoesOn()
    if (!(await index.removePack(row.pack))) continue
    await blobs.delete(packKey(row.pack))
    failpoint('collector:pack-deleted')
    packs += 1
    bytes += row.packBytes
  }
  return { packs, bytes }
}

/**
 * Makes rows, so that sizes and owners' answers are right: for manifests of records that have none, since the index was lost, and
 * for records that live by somebody else's, which goes with the next collection.
 */
async function adoptRows(engine: Engine, records: Records, foreign: readonly OwnerOf[]): Promise<ServiceError[]> {
  const unread: ServiceError[] = []
  const adopt = async ({ key, owner }: OwnerOf, onlyWhole: boolean) => {
    await adoptManifest(engine, hexOf(digestOfKey(key)), { owner, onlyWhole }).catch((error) => {
      if (!isServiceError(error, 'unavailable')) throw error
      unread.push(error)
    })
  }
  for (const record of foreign) await adopt(record, true)
  for (const [key, owners] of records) {
    if (await engine.index.findManifest(digestOfKey(key))) continue
    for (const owner of owners.keys()) await adopt({ key, owner }, false)
  }
  return unread
}
