import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { computeServer } from './compute-server.suite.ts'

const { ask, boot, world, close } = await computeServer()
after(close)
const act = (id: string, action: object, version = '2.1', as = 'mine:member') =>
  ask(`POST /servers/${id}/action`, { json: action, as, version })
const show = async (id: string) => {
  await world.idle()
  return (await ask(`GET /servers/${id}`, { version: '2.79' })).json.server
}

test('createImage tells the image by its address, and since 2.45 by its id', async () => {
  const id = await boot()
  const { save } = world.images
  const held = Promise.withResolvers<void>()
  world.images.save = async (...args) => {
    await held.promise
    return save.apply(world.images, args)
  }
  const old = await act(id, { createImage: { name: 'one', metadata: { role: 'web' } } })
  assert.equal(old.status, 202)
  assert.match(String(old.headers.location), /^http:\/\/localhost:80\/image\/v2\/images\/[0-9a-f-]{36}$/)
  const busy = await act(id, { createImage: { name: 'two' } })
  assert.equal(busy.status, 409)
  assert.match(busy.json.conflictingRequest.message, /Cannot 'snapshot' instance .* while it is in task_state image_/)
  held.resolve()
  assert.equal((await show(id)).status, 'ACTIVE')
  const made = await act(id, { createImage: { name: 'two' } }, '2.45')
  assert.deepEqual([made.status, made.headers.location], [202, undefined])
  await world.idle()
  const image = world.images.images.get(made.json.image_id)!
  assert.deepEqual([image.name, image.properties.image_type, image.properties.instance_uuid], ['two', 'snapshot', id])
})

test('createBackup keeps so many; with a rotation of 0 there is no image to tell of', async () => {
  const id = await boot()
  const backup = { name: 'b', backup_type: 'daily', rotation: '1' }
  const made = await act(id, { createBackup: backup }, '2.79')
  assert.equal(made.status, 202)
  await world.idle()
  assert.equal(world.images.images.get(made.json.image_id)!.properties.backup_type, 'daily')
  const none = await act(id, { createBackup: { ...backup, rotation: 0 } }, '2.79')
  assert.deepEqual([none.status, none.json], [202, undefined])
  await world.idle()
  assert.equal(world.images.images.has(made.json.image_id), false)
})

test('rebuild answers with the server, and takes what its version has', async () => {
  const id = await boot()
  const other = world.images.add({ name: 'other' })
  const made = await act(id, { rebuild: { imageRef: other, name: 'again', metadata: { a: 'b' } } })
  assert.equal(made.status, 202)
  assert.deepEqual([made.json.server.id, made.json.server.status], [id, 'REBUILD'])
  const { image, name, metadata, status } = await show(id)
  assert.deepEqual([image.id, name, metadata, status], [other, 'again', { a: 'b' }, 'ACTIVE'])
  const user_data = Buffer.from('#!/bin/sh\n').toString('base64')
  assert.equal((await act(id, { rebuild: { imageRef: other, user_data } }, '2.56')).status, 400)
  assert.equal((await act(id, { rebuild: { imageRef: other, user_data, description: 'x' } }, '2.57')).status, 202)
  assert.equal((await show(id)).description, 'x')
  assert.equal((await act(id, { rebuild: { imageRef: other, key_name: null } }, '2.54')).status, 202)
  assert.equal((await show(id)).key_name, null)
})

test('what is wrong is refused before anything is begun', async () => {
  const id = await boot()
  for (const [action, status] of [
    [{ createImage: {} }, 400],
    [{ createImage: { name: ' ' } }, 400],
    [{ createImage: { name: 'x', metadata: { a: 1 } } }, 400],
    [{ createBackup: { name: 'x', backup_type: 'daily', rotation: -1 } }, 400],
    [{ createBackup: { name: 'x', rotation: 1 } }, 400],
    [{ rebuild: {} }, 400],
    [{ rebuild: { imageRef: 'nothing' } }, 400],
    [{ rebuild: { imageRef: world.image, preserve_ephemeral: true } }, 400],
    [{ rebuild: { imageRef: world.image, personality: [{ path: '/a', contents: 'b' }] } }, 400],
  ] as const) {
    assert.equal((await act(id, action)).status, status, JSON.stringify(action))
  }
  assert.equal((await act(id, { createImage: { name: 'x' } }, '2.1', 'mine:reader')).status, 403)
  assert.equal((await act(id, { rebuild: { imageRef: world.image } }, '2.1', 'theirs:member')).status, 404)
  const server = await show(id)
  assert.deepEqual([server.status, server['OS-EXT-STS:task_state']], ['ACTIVE', null])
})
