/** kill -9 at no special moment, while several clients work and the collector runs. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { keepBusy, randomOf } from './busy-clients.ts'
import { ImageLedger } from './image-ledger.ts'
import { ImageRequests, Refused } from './image-requests.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from './mortal-service.ts'

const KILLS = 4

test('a service that is killed again and again keeps what it acknowledged and leaks nothing', async () => {
  const seed = Number(process.env.IMPRINT_TEST_SEED ?? randomInt(1_000_000))
  console.log(`IMPRINT_TEST_SEED=${seed}`)
  const random = randomOf(seed)
  const folder = await folderInMemory('random')
  const ledger = new ImageLedger()
  let service = await startMortal(folder, { IMPRINT_QUOTA_IMAGES: '-1' })
  try {
    const token = await adminToken(service)
    for (let turn = 0; turn < KILLS; turn += 1) {
      const images = new ImageRequests(service.address, token)
      const work = keepBusy(images, ledger, { clients: 3, seed: seed + turn })
      const collecting = collectUntilGone(images)
      await pause(300 + random() * 1500)
      await service.kill()
      const [open] = await Promise.all([work, collecting])
      service = await startMortal(folder)
      const again = new ImageRequests(service.address, token)
      // an upload that is given up takes the record with it that its commit had begun to make
      for (const upload of open) await again.abandonUpload(upload).catch(goneIsFine)
      await ledger.assertKept(again)
      await ledger.assertNothingLeaks(again)
      console.log(
        `kill ${turn + 1}: ready after ${Math.round(service.readyAfterMs)} ms, ${ledger.activeIds().length} images kept`,
      )
    }
    const images = new ImageRequests(service.address, token)
    await ledger.deleteAll(images)
    await ledger.assertNothingLeaks(images)
    assert.equal((await images.stats()).packs, 0)
  } finally {
    await service.stop()
    await removeFolder(folder)
  }
})

async function collectUntilGone(images: ImageRequests): Promise<void> {
  for (;;) {
    try {
      await images.job('collect')
    } catch (error) {
      if (error instanceof Refused) throw error
      return
    }
  }
}

function goneIsFine(error: unknown): void {
  if (!(error instanceof Refused && error.status === 404)) throw error
}
