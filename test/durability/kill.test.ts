/**
 * kill -9 at every durable step of the whole service, reached by requests as clients make them. After each death the service is
 * started on what it left, and held to what it had acknowledged; one collection later its store counts no chunk too many.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Failpoint, failpoints } from '../../src/base/failpoint.ts'
import { COMMAND } from '../../src/serve/nbd/protocol.ts'
import { NbdClient } from '../fixtures/nbd/nbd-client.ts'
import { absent, ImageLedger, queued } from './image-ledger.ts'
import { CHUNK_BYTES, type ChunkUpload, ImageRequests, noise, smallDisk } from './image-requests.ts'
import { adminToken, type Death, folderInMemory, type MortalService, removeFolder, startMortal } from './mortal-service.ts'

let folder = ''
let service: MortalService | undefined
let token = ''
let images: ImageRequests
const ledger = new ImageLedger()
const readyAfterMs: number[] = []
let seed = 0

before(async () => {
  folder = await folderInMemory('kill')
  await start()
  await newImage(smallDisk(++seed))
})
after(async () => {
  await service?.stop()
  await removeFolder(folder)
  console.log(`ready after a kill: ${readyAfterMs.map((ms) => Math.round(ms)).join(' ')} ms`)
})

async function start(): Promise<void> {
  await service?.stop()
  service = await startMortal(folder)
  token ||= await adminToken(service) // a token outlives the service
  images = new ImageRequests(service.address, token)
}

function running(): MortalService {
  assert.ok(service, 'the service was started')
  return service
}

// ---------------------------------------------------------------- what brings the service to its steps

type Action = (arm: () => Promise<void>) => Promise<void>

async function newRecord(diskFormat = 'raw'): Promise<string> {
  const id = randomUUID()
  await ledger.make(id, queued, () => images.create(id, `image ${seed}`, diskFormat))
  return id
}
async function newImage(bytes: Buffer): Promise<string> {
  const id = await newRecord()
  await ledger.make(id, { is: 'active', bytes }, () => images.send(id, bytes))
  return id
}

const create: Action = async (arm) => {
  await arm()
  await newRecord()
}
const upload: Action = async (arm) => {
  const id = await newRecord()
  const bytes = smallDisk(++seed)
  await arm()
  await ledger.make(id, { is: 'active', bytes }, () => images.send(id, bytes))
}
const stage: Action = async (arm) => {
  const id = await newRecord()
  const bytes = smallDisk(++seed)
  await arm()
  await ledger.make(id, { is: 'staged', bytes }, () => images.send(id, bytes, 'stage'))
}
/** A qcow2, of which the disk is kept. */
const importDisk: Action = async (arm) => {
  const disk = smallDisk(++seed)
  const file = await images.fetch(await newImage(disk), '?format=qcow2')
  const id = await newRecord('qcow2')
  await ledger.make(id, { is: 'staged', bytes: file }, () => images.send(id, file, 'stage'))
  await arm()
  await ledger.make(id, { is: 'active', bytes: disk }, async () => {
    await images.import(id)
    await running().ended
    throw new Error('the service died while it imported')
  })
}
const drop: Action = async (arm) => {
  const id = await newImage(smallDisk(++seed))
  await arm()
  await ledger.make(id, absent, () => images.delete(id))
}
const lend: Action = async (arm) => {
  const id = await newImage(smallDisk(++seed))
  await arm()
  await images.json('POST', '/v1/exports', { image: id })
}
const lendWritable: Action = async (arm) => {
  const id = await newImage(smallDisk(++seed))
  await arm()
  await images.json('POST', '/v1/exports', { image: id, writable: true })
}
/** What is lent keeps the chunks of a deleted image until its end, and so is kept what was written beside it. */
const endExport: Action = async (arm) => {
  const id = await newImage(smallDisk(++seed))
  const lent = await images.json<{ readonly id: string }>('POST', '/v1/exports', { image: id, writable: true })
  await ledger.make(id, absent, () => images.delete(id))
  await arm()
  await images.ask('DELETE', `/v1/exports/${lent.id}`)
}
const WRITTEN = 5
/** The name of a blank disk whose first block was written, and whose flush was cut. */
let cutDisk: string | undefined
const flushDisk: Action = async (arm) => {
  const { uris } = await images.json<{ readonly uris: { readonly unix: string } }>('POST', '/v1/exports', { size: 1024 * 1024 })
  cutDisk = new URL(uris.unix).pathname.slice(1)
  const client = await NbdClient.open(join(folder, 'data/nbd.sock'), cutDisk)
  await client.request(COMMAND.WRITE, { data: Buffer.alloc(CHUNK_BYTES, WRITTEN) })
  await arm()
  await client.request(COMMAND.FLUSH)
}
async function assertCutDisk(name: string): Promise<void> {
  cutDisk = undefined
  const client = await NbdClient.open(join(folder, 'data/nbd.sock'), name)
  const { data } = await client.request(COMMAND.READ, { length: 2 * CHUNK_BYTES })
  client.socket.destroy()
  const [block, next] = [data?.subarray(0, CHUNK_BYTES), data?.subarray(CHUNK_BYTES)]
  assert.ok(
    [0, WRITTEN].some((byte) => block?.equals(Buffer.alloc(CHUNK_BYTES, byte))),
    'as it was, or as it was written',
  )
  assert.ok(next?.equals(Buffer.alloc(CHUNK_BYTES)))
}
/** Of two packs one is all garbage then and one is mostly garbage. */
const collect: Action = async (arm) => {
  const shared = noise(5000 + seed, 65536)
  const large = await newImage(Buffer.concat([shared, noise(6000 + ++seed, 700_000)]))
  await newImage(Buffer.concat([noise(7000 + seed, 65536), shared]))
  const other = await newImage(smallDisk(++seed))
  for (const id of [large, other]) await ledger.make(id, absent, () => images.delete(id))
  await arm()
  await images.job('collect')
}
/** The upload that a death cuts is taken up after it: see `finishUpload`. */
let cut: { readonly upload: ChunkUpload; readonly bytes: Buffer } | undefined
const uploadChunks: Action = async (arm) => {
  const bytes = smallDisk(++seed)
  const upload = await images.beginUpload(`image ${seed}`, bytes)
  cut = { upload, bytes }
  await arm()
  await images.sendChunks(upload, bytes)
  await ledger.make(upload.imageId, { is: 'active', bytes }, () => images.commitUpload(upload, bytes), [queued])
}
const rename: Action = async (arm) => {
  const id = await newRecord()
  await arm()
  await ledger.rename(id, 'another name', () => images.rename(id, 'another name'))
}
/** As many changes as make the journal compact itself. */
const changeMuch: Action = async (arm) => {
  const id = await newRecord()
  await arm()
  // compaction begins after a thousand segments and runs beside the requests: they go on until it ends them
  for (let change = 0; change < 10_000; change += 1) await images.tag(id, `tag-${change % 100}`)
}

interface Case {
  readonly action: Action
  /** Some steps come up first for something else, as the record of an upload before its bytes. */
  readonly passing?: number
}
/**
 * The steps of instances are in kill-instances.test.ts: they need a machine. Those of volumes are in kill-volumes.test.ts; those of snapshots
 * beside their use cases, which no request calls by themselves; those of `imprint deploy` in e2e/deploy.test.ts, of memory in
 * e2e/machine-memory.test.ts.
 */
type Tried = Exclude<
  Failpoint,
  | 'catalog:migrating'
  | 'catalog:migrated'
  | `machine:${string}`
  | `memory:${string}`
  | `migration:${string}`
  | `instance:${string}`
  | `snapshot:${string}`
  | `deploy:${string}`
  | OfVolumes
>
type OfVolumes = `volume:${string}` | 'scratch:layer-made' | 'scratch:sealed'
const isElsewhere = (name: Failpoint) =>
  /^(machine:|memory:|migration:|instance:|snapshot:|deploy:|volume:|scratch:(layer-made|sealed)$)/.test(name)
const cases: Readonly<Record<Tried, Case>> = {
  'blob:written': { action: upload, passing: 2 },
  'blob:synced': { action: upload, passing: 2 },
  'blob:renamed': { action: upload, passing: 2 },
  'blob:published': { action: upload, passing: 2 },
  'blob:deleted': { action: collect },
  'pack:put': { action: upload },
  'pack:indexed': { action: upload },
  'chunks:claimed': { action: upload },
  'manifest:pages-put': { action: upload },
  'manifest:committed': { action: upload },
  'collector:marked': { action: collect },
  'collector:swept': { action: collect },
  'collector:repacked': { action: collect },
  'collector:pack-deleted': { action: collect },
  'catalog:committed': { action: create },
  'catalog:durable': { action: rename },
  'journal:put': { action: upload, passing: 2 },
  'journal:compacted': { action: changeMuch },
  'upload:saving': { action: upload },
  'upload:ingested': { action: upload },
  'upload:active': { action: upload },
  'import:started': { action: importDisk },
  'import:unpacked': { action: importDisk },
  'import:ingested': { action: importDisk },
  'import:active': { action: importDisk },
  'delete:recorded': { action: drop },
  'delete:dropped': { action: drop },
  'stage:ingested': { action: stage },
  'session:chunk-put': { action: uploadChunks },
  'session:committed': { action: uploadChunks },
  'lease:made': { action: lend },
  'lease:ended': { action: endExport },
  'scratch:made': { action: lendWritable },
  'scratch:bytes-synced': { action: flushDisk },
}

// ---------------------------------------------------------------- the tests

for (const [name, { action, passing = 1 }] of Object.entries(cases)) {
  test(`killed at ${name}, the service keeps what it acknowledged and leaks nothing`, async () => {
    const death = `${name}:${passing}` as Death
    const work = action(() => running().arm(death)).then(
      () => assert.fail(`nothing passes ${death}`),
      (error: unknown) => error,
    )
    const end = await Promise.race([running().ended, work.then(async (error) => Promise.race([running().ended, late(error)]))])
    assert.equal(end, 'SIGKILL')
    await work
    await start()
    readyAfterMs.push(running().readyAfterMs)
    await ledger.assertKept(images)
    if (cut) await finishUpload(cut)
    if (cutDisk) await assertCutDisk(cutDisk)
    await assertScratchIsWanted()
    await ledger.assertNothingLeaks(images)
  })
}

/** Each writable export has its disk, and no other disk is there. */
async function assertScratchIsWanted(): Promise<void> {
  const wanted = (await exportsNow()).filter(({ writable }) => writable).map(({ id }) => id)
  assert.deepEqual(readdirSync(join(folder, 'data/scratch')).sort(), wanted.sort())
}
interface ShownExport {
  readonly id: string
  readonly writable: boolean
}
const exportsNow = async () => (await images.json<{ readonly exports: readonly ShownExport[] }>('GET', '/v1/exports')).exports

/** What a request failed with, where the service did not die of it. */
async function late(error: unknown): Promise<never> {
  await pause(5_000)
  throw error
}

async function finishUpload({ upload, bytes }: NonNullable<typeof cut>): Promise<void> {
  cut = undefined
  await images.sendChunks(upload, bytes).catch(() => undefined) // committed before it died: nothing is to be sent
  await ledger.make(upload.imageId, { is: 'active', bytes }, () => images.commitUpload(upload, bytes))
  await ledger.assertKept(images)
}

const migrating = ['catalog:migrating', 'catalog:migrated'] as const

for (const name of migrating) {
  test(`killed at ${name} while a lost catalog is made again, the service makes it again`, async () => {
    await running().stop()
    for (const file of readdirSync(join(folder, 'data'))) {
      if (/^(catalog|index)\.db/.test(file)) rmSync(join(folder, 'data', file))
    }
    await assert.rejects(startMortal(folder, { IMPRINT_FAILPOINT: name }), /ended \(SIGKILL\)/)
    token = '' // tokens are in the database only
    await start()
    readyAfterMs.push(running().readyAfterMs)
    await ledger.assertKept(images)
    await ledger.assertNothingLeaks(images)
  })

  test(`killed at ${name} on the first start of all, the service starts the next time`, async () => {
    const fresh = await folderInMemory('first')
    try {
      await assert.rejects(startMortal(fresh, { IMPRINT_FAILPOINT: name }), /ended \(SIGKILL\)/)
      const other = await startMortal(fresh)
      await adminToken(other)
      await other.stop()
    } finally {
      await removeFolder(fresh)
    }
  })
}

test('every failpoint is tried, and the code passes no other', () => {
  const here = failpoints.filter((name) => !isElsewhere(name))
  assert.deepEqual([...Object.keys(cases), ...migrating].sort(), here.sort())
})

test('when every image is deleted, one collection leaves no pack', async () => {
  await ledger.deleteAll(images)
  const exports = await exportsNow()
  assert.equal(exports.length, 2, 'one was made by a service that died before it said so, one when a disk was flushed')
  for (const { id } of exports) await images.ask('DELETE', `/v1/exports/${id}`)
  await ledger.assertNothingLeaks(images)
  await assertScratchIsWanted()
  const store = join(folder, 'data/store')
  const left = readdirSync(store, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(store.length + 1))
    .filter((key) => !key.startsWith('journal/'))
  assert.deepEqual(left, ['store.json'])
  assert.ok(existsSync(join(folder, 'data/catalog.db')))
})
