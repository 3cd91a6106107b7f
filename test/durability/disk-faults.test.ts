/**
 * Writes of the two databases fail, in a whole service: with EIO as on a broken disk, with ENOSPC and all later ones
 * too as on a full one, and half-way as a file system does that ends in the middle of a page. What was acknowledged stays, all
 * else gets a typed answer, and the service goes on: by itself, or after a restart where it says so. Some writes are tried, spread
 * over all that the work makes; with IMPRINT_TEST_EVERY_WRITE=1 each of them, which takes minutes.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { missingTool } from '../peers/command.ts'
import { type CallFault, untraceable, whileCallsFail, whileFilesEndAt } from './file-faults.ts'
import { absent, ImageLedger, queued } from './image-ledger.ts'
import { ImageRequests, noise, Refused } from './image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from './mortal-service.ts'

const KiB = 1024
const noStrace = untraceable()

let folder = ''
let service: MortalService
let images: ImageRequests
let token = ''
const ledger = new ImageLedger()
let seed = 0

async function restart(): Promise<void> {
  await service?.stop()
  service = await startMortal(folder, { IMPRINT_QUOTA_IMAGES: '-1' })
  token ||= await adminToken(service)
  images = new ImageRequests(service.address, token)
}
before(async () => {
  folder = await folderInMemory('faults')
  await restart()
})
after(async () => {
  await service.stop()
  await removeFolder(folder)
})

const TRIED = process.env.IMPRINT_TEST_EVERY_WRITE ? Number.POSITIVE_INFINITY : 9
const STEP_BYTES = process.env.IMPRINT_TEST_EVERY_WRITE ? 1777 : 19_777 // no part of a page, so that writes end anywhere in one
/** A checkpoint comes with 16 MiB of log. */
const TURNS_TO_CHECKPOINT = 60
/** The first, the last, and some between. */
const spread = (most: number): readonly number[] => {
  const tried = Math.min(TRIED, most)
  return Array.from({ length: tried }, (_, step) => 1 + Math.round((step * (most - 1)) / (tried - 1)))
}

const file = (name: string): string => join(folder, 'data', name)
const filesOf = (database: string): readonly string[] => ['', '-wal', '-shm'].map((end) => file(database + end))

async function put(bytes: Buffer): Promise<string> {
  const id = randomUUID()
  ledger.name(id, 'disk')
  await ledger.make(id, queued, () => images.create(id, 'disk'))
  await ledger.make(id, { is: 'active', bytes }, () => images.send(id, bytes))
  return id
}

/** Everything that writes to either database, until the disk refuses. @returns the answer where it did */
async function useUntilRefused(): Promise<Refused | undefined> {
  seed += 1
  try {
    const id = await put(noise(seed, 70 * KiB))
    await ledger.rename(id, `name ${seed}`, () => images.rename(id, `name ${seed}`))
    if (seed % 2 === 0) await ledger.make(id, absent, () => images.delete(id))
    return undefined
  } catch (error) {
    assert.ok(error instanceof Refused, `a typed answer, and not: ${error}`)
    assert.ok(
      (error.status === 507 && error.code === 'no-space') || (error.status === 503 && error.code === 'unavailable'),
      error.message,
    )
    return error
  }
}

/** Whether the service worked on without a restart. */
async function assertGoesOn(): Promise<boolean> {
  const refused = await useUntilRefused()
  if (!refused) return true
  assert.equal(refused.code, 'unavailable', 'it works again once there is room, or asks for a restart')
  await restart()
  assert.equal(await useUntilRefused(), undefined, 'a restart is enough')
  return false
}

/** What could not be given back while the disk was full is given back a little later. */
async function assertAllKept(): Promise<void> {
  const isHeld = async (id: string) => ['saving', 'uploading'].includes((await images.show(id))?.status ?? '')
  for (const id of ledger.ids) {
    for (const deadline = Date.now() + 30_000; await isHeld(id); await pause(100))
      assert.ok(Date.now() < deadline, `${id} is held`)
  }
  await ledger.assertKept(images)
  await ledger.assertNothingLeaks(images)
}

for (const database of ['catalog.db', 'index.db']) {
  for (const [error, andAllAfter] of [
    ['EIO', false],
    ['ENOSPC', true],
  ] as const) {
    test(`${error} at a write of ${database}`, { skip: noStrace }, async () => {
      const faultAt = (nth: number): CallFault => ({ files: filesOf(database), call: 'pwrite64', error, nth, andAllAfter })
      const { made } = await whileCallsFail(service.pid, faultAt(65_535), async () => {
        assert.equal(await useUntilRefused(), undefined)
      })
      assert.ok(made > 20, `there are writes: ${made}`)
      let [refusals, restarts] = [0, 0]
      for (const nth of spread(made)) {
        const { failed } = await whileCallsFail(service.pid, faultAt(nth), async () => {
          if (await useUntilRefused()) refusals += 1
        })
        assert.ok(failed > 0 || nth > made / 2, `write ${nth} of ${made} was reached`)
        if (!(await assertGoesOn())) restarts += 1
      }
      console.log(`${error}, ${database}: ${spread(made).length} of ${made} writes, ${refusals} refusals, ${restarts} restarts`)
      assert.ok(refusals > 0)
      await assertAllKept()
    })
  }

  // the catalog's log is synced by a descriptor of its own, the index by SQLite
  const call = database === 'catalog.db' ? 'fdatasync' : 'fsync'
  test(`EIO at a sync of ${database}`, { skip: noStrace }, async () => {
    const fault: CallFault = { files: filesOf(database), call, error: 'EIO', nth: 1, andAllAfter: false }
    let refused: Refused | undefined
    const { failed } = await whileCallsFail(service.pid, fault, async () => {
      refused = await useUntilRefused()
    })
    assert.ok(failed > 0)
    assert.equal(refused?.code, 'unavailable')
    const wentOn = await assertGoesOn()
    assert.equal(wentOn, database === 'index.db', 'the catalog takes nothing more until it has looked at what is on disk')
    await assertAllKept()
  })

  test(`writes of ${database} that end in the middle`, { skip: missingTool('prlimit') }, async () => {
    let refusals = 0
    for (let room = 0; ; room += STEP_BYTES) {
      let refused: Refused | undefined
      await whileFilesEndAt(service.pid, statSync(file(`${database}-wal`)).size + room, async () => {
        refused = await useUntilRefused()
      })
      await assertGoesOn()
      if (!refused) {
        console.log(`${database}: ${refusals} refusals`)
        break
      }
      refusals += 1
    }
    await assertAllKept()
  })
}

for (const error of ['EIO', 'ENOSPC'] as const) {
  test(`${error} while the log of the catalog is copied into the database`, { skip: noStrace }, async () => {
    const id = await put(noise(seed, 1000))
    const value = 'x'.repeat(60_000)
    const fault: CallFault = { files: [file('catalog.db')], call: 'pwrite64', error, nth: 1, andAllAfter: true }
    let refused: unknown
    const { failed } = await whileCallsFail(service.pid, fault, async () => {
      for (let turn = 0; turn < TURNS_TO_CHECKPOINT && !refused; turn += 1) {
        const changes = Array.from({ length: 4 }, (_, n) => ({ op: 'add', path: `/large${n}`, value: turn + value }))
        const patch = images.ask('PATCH', `/image/v2/images/${id}`, JSON.stringify(changes), {
          'content-type': 'application/openstack-images-v2.1-json-patch',
        })
        refused = await patch.then(
          () => undefined,
          (error: unknown) => error,
        )
      }
    })
    assert.ok(failed > 0, 'it came to a checkpoint')
    if (error === 'EIO') assert.ok(refused instanceof Refused && refused.code === 'unavailable', String(refused))
    else assert.equal(refused, undefined, 'the log goes on to grow')
    const wentOn = await assertGoesOn()
    assert.equal(wentOn, error === 'ENOSPC')
    await assertAllKept()
  })
}
