import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { withVolume } from '../../../test/filesystems/guest-tree.ts'
import { missingTool } from '../../../test/peers/command.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import { deleteImage } from '../delete-image.ts'
import { type ImageWorld, imageWorld, sent, someone } from '../image-world.suite.ts'
import type { Inspect } from '../ports.ts'
import { upload } from '../upload.ts'
import { inspectImage, sweepInspections } from './inspections.ts'

const skip = missingTool('mke2fs')
const alice = someone('alice')
const bob = someone('bob')
let world: ImageWorld
before(async () => {
  world = await imageWorld()
})
after(() => world.close())

/** A qcow2 of a small Debian. */
const machine = (hostname: string): Promise<Buffer> => {
  const status = 'Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n'
  const files = { 'etc/os-release': 'ID=debian\nVERSION_ID=12\n', 'etc/hostname': hostname, 'var/lib/dpkg/status': status }
  return withVolume(files, async (disk) => {
    const file = await wrapDisk('qcow2', { ...disk, close: async () => {} })
    return Buffer.from(await file.read(0, file.size))
  })
}

/** Counts how often a disk is looked into. */
function counted() {
  const counts = { inspected: 0 }
  const inspect: Inspect = (...given) => {
    counts.inspected += 1
    return world.ports.inspect(...given)
  }
  return { ports: { ...world.ports, inspect }, counts }
}

async function image(owner: typeof alice, bytes: Buffer, members: Record<string, unknown> = {}): Promise<string> {
  const { id } = await world.create(owner, { disk_format: 'qcow2', ...members })
  await upload(world.ports, owner, id, sent(bytes))
  return id
}

test('an image is looked into once, also by those who ask at the same time, and its twin not again', { skip }, async () => {
  const bytes = await machine('one')
  const [id, twin] = [await image(alice, bytes), await image(alice, bytes)]
  const { ports, counts } = counted()
  const [first, second] = await Promise.all([inspectImage(ports, alice, id), inspectImage(ports, alice, id)])
  assert.equal(first, second)
  const [system] = first.anatomy.systems
  assert.deepEqual([system?.os?.distro, system?.os?.hostname, system?.software?.failures], ['debian', 'one', []])
  assert.deepEqual(
    system?.software?.packages.map(({ name, version }) => [name, version]),
    [['bash', '5.2-1']],
  )
  assert.deepEqual((await inspectImage(ports, alice, id)).anatomy, first.anatomy)
  assert.deepEqual((await inspectImage(ports, alice, twin)).anatomy, first.anatomy)
  assert.equal(counts.inspected, 1)
  const other = await image(bob, bytes)
  await inspectImage(ports, bob, other)
  assert.equal(counts.inspected, 2, 'what another project has is not told by how soon an answer comes')
})

test('whoever may not download an image does not learn what it holds', { skip }, async () => {
  const id = await image(alice, await machine('secret'))
  await assert.rejects(inspectImage(world.ports, bob, id), { code: 'not-found' })
})

test('an image without bytes, and one that is no disk, say so', async () => {
  const { id } = await world.create(alice, {})
  await assert.rejects(inspectImage(world.ports, alice, id), { code: 'conflict', message: /when it is active/ })
  const kernel = await world.create(alice, { disk_format: 'aki', container_format: 'aki' })
  await upload(world.ports, alice, kernel.id, sent(Buffer.from('not a disk')))
  await assert.rejects(inspectImage(world.ports, alice, kernel.id), { code: 'unsupported' })
})

test('what was found goes when no image has those bytes any more', { skip }, async () => {
  await sweepInspections(world.ports.catalog)
  const bytes = await machine('gone')
  const [one, two] = [await image(alice, bytes), await image(alice, bytes)]
  await inspectImage(world.ports, alice, one)
  await deleteImage(world.ports, alice, one)
  assert.equal(await sweepInspections(world.ports.catalog), 0)
  await deleteImage(world.ports, alice, two)
  assert.equal(await sweepInspections(world.ports.catalog), 1)
})
