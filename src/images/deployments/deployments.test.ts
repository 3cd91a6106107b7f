import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, beforeEach, test } from 'node:test'
import { isServiceError } from '../../base/errors.ts'
import { deleteImage } from '../delete-image.ts'
import { type ImageWorld, imageWorld, sent, someone } from '../image-world.suite.ts'
import type { LeasePorts } from '../leases/disk-leases.ts'
import { listExports } from '../leases/exports.ts'
import { LeasedDisks } from '../leases/leased-disks.ts'
import { upload } from '../upload.ts'
import {
  allowDeployment,
  forgetDeployment,
  imageOfDeployment,
  listDeployments,
  orderOf,
  reportDeployment,
  showDeployment,
  sweepDeployments,
  tokenForMachine,
} from './deployments.ts'

const bytes = randomBytes(100_000)
let world: ImageWorld
let ports: LeasePorts
/** What tests add to the clock. */
let later = 0
before(async () => {
  world = await imageWorld()
})
beforeEach(() => {
  later = 0
  const now = () => Date.now() + later
  const disks = new LeasedDisks({ catalog: world.ports.catalog, chunks: world.chunks, now }, null)
  ports = { catalog: world.ports.catalog, now, disks, scratchQuotaBytes: 0 }
})
after(() => world.close())

const alice = someone('alice', 'admin')
const bob = someone('bob')
let macs = 0
const newMac = () => `52:54:00:00:00:${(++macs).toString(16).padStart(2, '0')}`
async function newImage(content = bytes): Promise<string> {
  const { id } = await world.create(alice, { name: 'debian', min_disk: 3 })
  await upload(world.ports, alice, id, sent(content))
  return id
}
const wish = (imageId: string, machine: string | null = newMac()) => ({ imageId, machine, target: '/dev/sda' })
const refused = { code: 'unauthenticated' }
/** What a machine gets that is not told to ask again. */
async function tokenFor(machine: string) {
  const given = await tokenForMachine(ports, machine)
  assert.notEqual(given, 'busy')
  return given === 'busy' ? undefined : given
}

test('a machine that waits gets a token that reads its image and nothing else, also when the image is deleted', async () => {
  const imageId = await newImage()
  const { key: id, body } = await allowDeployment(ports, alice, wish(imageId))
  assert.equal(body.state, 'waiting')
  assert.equal(await tokenFor(newMac()), undefined, 'another machine gets none')
  const given = (await tokenFor(body.machine!))!
  assert.equal(given.id, id)
  await deleteImage(world.ports, alice, imageId)
  await world.collect()
  const order = await orderOf(ports, id, given.token)
  assert.deepEqual([order.body.image.name, order.body.image.minDisk, order.body.target], ['debian', 3, '/dev/sda'])
  const { manifest } = await imageOfDeployment(ports, id, given.token)
  const file = await world.chunks.open(manifest)
  assert.ok(bytes.equals(await file.read(0, file.size)))
  await file.close()
  const other = await allowDeployment(ports, alice, wish(await newImage()))
  await assert.rejects(orderOf(ports, other.key, given.token), refused)
  await assert.rejects(orderOf(ports, id, 'guessed'), refused)
  const again = (await tokenFor(body.machine!))!
  await assert.rejects(imageOfDeployment(ports, id, given.token), refused, 'it started anew: only the newest token is good')
  await reportDeployment(ports, id, again.token, { state: 'writing', doneBytes: 5, totalBytes: 10 })
  assert.equal((await showDeployment(ports, alice, id)).body.doneBytes, 5)
  later = 30_000
  assert.ok(await tokenFor(body.machine!), 'a machine that was cut off goes on')
})

test('while a machine writes and is heard of, nobody else gets a token by its MAC, and its own stays good', async () => {
  const { key: id, body } = await allowDeployment(ports, alice, wish(await newImage()))
  const { token } = (await tokenFor(body.machine!))!
  for (const seconds of [0, 29, 58]) {
    later = seconds * 1000
    await reportDeployment(ports, id, token, { state: 'writing', doneBytes: 1, totalBytes: 2 })
    assert.equal(await tokenForMachine(ports, body.machine!), 'busy')
    later += 29_000
    assert.equal(await tokenForMachine(ports, body.machine!), 'busy')
    await orderOf(ports, id, token)
  }
  later += 1001
  assert.ok(await tokenFor(body.machine!), 'it was heard of no more')
  await assert.rejects(orderOf(ports, id, token), refused)
})

test('when it is done its token is good no more, the machine gets no other, and the bytes go', async () => {
  for (const report of [{ state: 'done' }, { state: 'failed', message: 'the disk is broken' }] as const) {
    const imageId = await newImage(randomBytes(1000)) // that no other image has
    const { key: id, body } = await allowDeployment(ports, alice, wish(imageId))
    const { token } = (await tokenFor(body.machine!))!
    await reportDeployment(ports, id, token, report)
    await assert.rejects(orderOf(ports, id, token), refused)
    await assert.rejects(reportDeployment(ports, id, token, { state: 'writing', doneBytes: 1, totalBytes: 2 }), refused)
    assert.equal(await tokenFor(body.machine!), undefined)
    const { body: shown } = await showDeployment(ports, alice, id)
    assert.deepEqual([shown.state, shown.message], [report.state, 'message' in report ? report.message : null])
    const { manifest } = (await ports.catalog.images.get(imageId))!
    await deleteImage(world.ports, alice, imageId)
    await world.collect()
    await assert.rejects(world.chunks.open(manifest!), (error) => isServiceError(error, 'not-found'))
    await allowDeployment(ports, alice, wish(await newImage(), body.machine)) // and it may be written again
  }
})

test('any machine: the first that asks gets it and is known from then on', async () => {
  const { key: id } = await allowDeployment(ports, alice, wish(await newImage(), null))
  const [first, second] = [newMac(), newMac()]
  assert.equal((await tokenFor(first))?.id, id)
  assert.equal(await tokenFor(second), undefined)
  assert.equal((await tokenFor(first))?.id, id)
  assert.equal((await showDeployment(ports, alice, id)).body.machine, first)
})

test('machines that ask at once for one deployment do not share it', async () => {
  const { key: id } = await allowDeployment(ports, alice, wish(await newImage(), null))
  const asked = await Promise.all(Array.from({ length: 20 }, () => tokenFor(newMac())))
  assert.deepEqual(
    asked.filter(Boolean).map((given) => given?.id),
    [id],
  )
})

test('who may: those who may download the image; others see nothing of it', async () => {
  const imageId = await newImage()
  await assert.rejects(allowDeployment(ports, bob, wish(imageId)), { code: 'denied' })
  await assert.rejects(allowDeployment(ports, someone('alice', 'reader'), wish(imageId)), { code: 'denied' })
  const { key: id, body } = await allowDeployment(ports, alice, wish(imageId))
  await assert.rejects(showDeployment(ports, bob, id), { code: 'not-found' })
  await assert.rejects(forgetDeployment(ports, bob, id), { code: 'not-found' })
  await assert.rejects(forgetDeployment(ports, someone('alice', 'reader'), id), { code: 'denied' })
  assert.deepEqual(await listDeployments(ports, bob), [])
  await assert.rejects(allowDeployment(ports, alice, wish(imageId, body.machine)), { code: 'conflict' })
  assert.deepEqual(await listExports(ports, alice), [], 'its lease is no export')
  const { token } = (await tokenFor(body.machine!))!
  await forgetDeployment(ports, alice, id)
  await assert.rejects(orderOf(ports, id, token), refused)
})

test('what expires is told of, and what has been over for a week is forgotten', async () => {
  const { key: id, body } = await allowDeployment(ports, alice, { ...wish(await newImage()), seconds: 3600 })
  const { token } = (await tokenFor(body.machine!))!
  later = 3600_001
  await assert.rejects(orderOf(ports, id, token), refused)
  assert.equal(await tokenFor(body.machine!), undefined)
  await sweepDeployments(ports)
  const { body: shown } = await showDeployment(ports, alice, id)
  assert.deepEqual([shown.state, shown.message], ['failed', 'it expired'])
  later += 8 * 24 * 3600_000
  await sweepDeployments(ports)
  await assert.rejects(showDeployment(ports, alice, id), { code: 'not-found' })
})
