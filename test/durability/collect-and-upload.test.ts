/** The collector never stops while clients send what others delete: no chunk in use is lost. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { keepBusy } from './busy-clients.ts'
import { ImageLedger } from './image-ledger.ts'
import { ImageRequests } from './image-requests.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from './mortal-service.ts'

const CLIENTS = 4
const TURNS = 20

test('while the collector runs without end, no image loses a byte and in the end nothing is left over', async () => {
  const seed = Number(process.env.IMPRINT_TEST_SEED ?? randomInt(1_000_000))
  console.log(`IMPRINT_TEST_SEED=${seed}`)
  const folder = await folderInMemory('collect')
  const service = await startMortal(folder, { IMPRINT_QUOTA_IMAGES: '-1' })
  try {
    const images = new ImageRequests(service.address, await adminToken(service))
    const ledger = new ImageLedger()
    let working = true
    const work = keepBusy(images, ledger, { clients: CLIENTS, turns: TURNS, seed }).finally(() => {
      working = false
    })
    let collections = 0
    for (; working; collections += 1) await images.job('collect')
    assert.deepEqual(await work, [])
    console.log(`${collections} collections beside ${CLIENTS * TURNS} steps`)
    await ledger.assertKept(images)
    await ledger.assertNothingLeaks(images)
    await ledger.deleteAll(images)
    await ledger.assertNothingLeaks(images)
    assert.equal((await images.stats()).packs, 0)
  } finally {
    await service.stop()
    await removeFolder(folder)
  }
})
