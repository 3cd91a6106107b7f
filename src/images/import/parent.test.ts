import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { after, before, type TestContext, test } from 'node:test'
import { lacking, run, scratch } from '../../../test/fixtures/disk/tools.ts'
import { deleteImage } from '../delete-image.ts'
import { stage } from '../stage.ts'
import { importImage } from './import-image.ts'
import { importRequestFrom } from './import-request.ts'
import { importService, importStores } from './import-service.suite.ts'
import { parentOf } from './parent-disk.ts'
import { newTask } from './tasks.ts'

const skip = lacking('qemu-img', 'qemu-io')
const MiB = 2 ** 20
let stores: Awaited<ReturnType<typeof importStores>>
before(async () => {
  stores = await importStores()
})
after(() => stores.close())

/** An image, and a qcow2 that is a difference to its disk: 64 KiB of it changed, and half a MiB longer. */
async function family(t: TestContext) {
  const service = await importService(stores, { ports: [] })
  t.after(() => service.close())
  const path = await scratch(t)
  const disk = randomBytes(MiB)
  await writeFile(path('parent.raw'), disk)
  await run('qemu-img', 'create', '-f', 'qcow2', '-F', 'raw', '-b', path('parent.raw'), path('child.qcow2'), String(1.5 * MiB))
  await run('qemu-io', '-f', 'qcow2', '-c', 'write -P 0x41 128k 64k', path('child.qcow2'))
  const child = Buffer.concat([disk, Buffer.alloc(MiB / 2)]).fill(0x41, 128 * 1024, 192 * 1024)
  const file = await readFile(path('child.qcow2'))
  const add = async (bytes: Uint8Array, diskFormat: string, method: object = {}) => {
    const id = await service.image({ diskFormat })
    async function* body() {
      yield bytes
    }
    await stage(service.ports(), service.caller, id, { bytes: body(), declaredBytes: null })
    return (await service.import(id, { name: 'glance-direct', ...method })).image
  }
  return { service, disk, child, file, add }
}

test('a difference is imported over the image that is named as its parent, and stands alone then', { skip }, async (t) => {
  const { service, disk, child, file, add } = await family(t)
  const parent = await add(disk, 'raw')
  const image = await add(file, 'qcow2', { parent_image: parent.id })
  assert.deepEqual([image.status, image.diskFormat, image.size], ['active', 'raw', child.length], String(image.notes.failure))
  assert.equal(image.notes.parentImage, parent.id)
  await deleteImage(service.ports(), service.caller, parent.id)
  assert.ok(child.equals(await service.bytesOf(image.id)))
  const { storedBytes } = await service.collected()
  assert.ok(storedBytes < 1.1 * MiB, `${storedBytes}`)
})

test('without its parent it is refused, and the file that it names is not looked for', { skip }, async (t) => {
  const { add, file } = await family(t)
  const image = await add(file, 'qcow2')
  assert.equal(image.status, 'queued')
  assert.match(String(image.notes.failure), /backing file/)
})

test('a parent is the caller’s to read, active, a disk; and only of what is a difference', { skip }, async (t) => {
  const { service, disk, file, add } = await family(t)
  const asked = (parent: unknown) =>
    service
      .image({ diskFormat: 'qcow2' })
      .then((id) =>
        importImage(
          service.ports(),
          service.caller,
          id,
          importRequestFrom({ method: { name: 'web-download', uri: 'http://127.0.0.1/', parent_image: parent } }),
        ),
      )
  await assert.rejects(asked('../etc'), { code: 'invalid-request', message: /parent_image/ })
  const method = { name: 'glance-direct' }
  const queued = await service.image()
  const theirs = await add(disk, 'raw')
  await service.catalog.write(({ images }) =>
    images.update(theirs.id, theirs.version, { owner: 'others', visibility: 'private' }),
  )
  for (const [parent_image, code] of [
    [theirs.id, 'not-found'],
    [queued, 'conflict'],
  ] as const) {
    const id = await service.image({ diskFormat: 'qcow2' })
    async function* body() {
      yield file
    }
    await stage(service.ports(), service.caller, id, { bytes: body(), declaredBytes: null })
    const begun = importImage(service.ports(), service.caller, id, importRequestFrom({ method: { ...method, parent_image } }))
    await assert.rejects(begun, { code })
  }
  const late = newTask(service.caller, theirs, importRequestFrom({ method: { ...method, parent_image: theirs.id } }), 0)
  await assert.rejects(parentOf(service.ports(), late), { code: 'not-found' }, 'what was the caller’s when it was asked for')
  const parent = await add(disk, 'raw')
  for (const [bytes, format] of [
    [disk, 'raw'],
    [await readFile('/bin/sh'), 'ami'],
  ] as const) {
    const image = await add(bytes, format, { parent_image: parent.id })
    assert.equal(image.status, 'queued')
    assert.match(String(image.notes.failure), /difference|parent/)
  }
})
