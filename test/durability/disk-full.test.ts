/** A disk that is really full: the data folder of a whole service on a file system of a few MiB. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { command, missingTool, must } from '../peers/command.ts'
import { absent, ImageLedger, queued } from './image-ledger.ts'
import { ImageRequests, noise, Refused } from './image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from './mortal-service.ts'

const MiB = 1024 * 1024
const DISK_MIB = 48
const POLL_MS = 50

const reason = process.getuid?.() === 0 ? missingTool('mount') : 'mounting a small file system takes root'

test('on a full disk an upload is refused, nothing is lost, and it works again when there is room', {
  skip: reason,
}, async (t) => {
  const folder = await folderInMemory('full')
  const data = join(folder, 'data')
  const mounted = await command(['mount', '-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'imprint-test', data])
  if (mounted.code !== 0) {
    await removeFolder(folder)
    return t.skip(`no file system can be mounted here: ${mounted.stderr.trim()}`)
  }
  let service: MortalService | undefined
  try {
    service = await startMortal(folder)
    const images = new ImageRequests(service.address, await adminToken(service))
    const ledger = new ImageLedger()
    const put = async (bytes: Buffer) => {
      const id = randomUUID()
      await ledger.make(id, queued, () => images.create(id, 'disk'))
      await ledger.make(id, { is: 'active', bytes }, () => images.send(id, bytes))
      return id
    }
    const first = await put(noise(1, 8 * MiB))
    for (const turn of [1, 2]) {
      const tooMuch = await put(noise(10 + turn, DISK_MIB * MiB)).then(
        () => assert.fail('more bytes than the disk has were taken'),
        (error: unknown) => error,
      )
      assert.ok(tooMuch instanceof Refused, String(tooMuch))
      assert.deepEqual([tooMuch.status, tooMuch.code], [507, 'no-space'])
    }
    // where the full disk did not take the note at once, it is written behind the request
    for (const id of ledger.ids.slice(1)) while ((await images.show(id))?.status === 'saving') await pause(POLL_MS)
    await ledger.assertKept(images)
    for (const id of ledger.ids.slice(1)) {
      const shown = await images.show(id)
      assert.equal(shown?.status, 'queued')
      assert.match(shown?.failure ?? '', /full/)
    }
    assert.ok((await fetch(`${service.address}/readyz`)).ok, 'the service stays up')

    await ledger.make(first, absent, () => images.delete(first))
    await ledger.assertNothingLeaks(images)
    await put(noise(3, 8 * MiB))
    await ledger.assertKept(images)
  } finally {
    await service?.stop()
    await must(['umount', data])
    await removeFolder(folder)
  }
})
