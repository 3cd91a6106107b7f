/** The databases are gone and the store is there: everything comes back but what was never meant to. */
import assert from 'node:assert/strict'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { assembleCast, cast, logIn } from '../peers/identity-client.ts'
import { ImageRequests, smallDisk } from './image-requests.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from './mortal-service.ts'
import { populate, stateOf } from './whole-service.ts'

test('a service that lost its databases makes them again from the store', async () => {
  const folder = await folderInMemory('lost')
  let service = await startMortal(folder)
  try {
    const people = await assembleCast(`${service.address}/identity/v3`)
    let images = new ImageRequests(service.address, people.admin.token)
    const sent = await populate(images, people, [smallDisk(1), smallDisk(2), smallDisk(3)])
    const before = await stateOf(images)
    await service.stop()
    for (const file of readdirSync(join(folder, 'data'))) {
      if (/\.db(-wal|-shm)?$/.test(file)) rmSync(join(folder, 'data', file))
    }

    service = await startMortal(folder)
    images = new ImageRequests(service.address, people.admin.token)
    await assert.rejects(images.list(), { status: 401 }, 'tokens are not kept in the store')
    images = new ImageRequests(service.address, await adminToken(service))
    assert.deepEqual(await stateOf(images), before)
    for (const [id, bytes] of sent) assert.equal(Buffer.compare(await images.fetch(id), bytes), 0)
    await logIn(`${service.address}/identity/v3`, cast.member)
    assert.deepEqual((await images.job('check', { readData: true })).faults, [])
  } finally {
    await service.stop()
    await removeFolder(folder)
  }
})
