import assert from 'node:assert/strict'
import { test } from 'node:test'
import { writeSource } from '../../../test/fixtures/disk/disks.ts'
import { scratch } from '../../../test/fixtures/disk/tools.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import type { TransferState } from '../progress.ts'
import { openDisk } from './open-disk.ts'
import { type OpenPlaces, placesOf } from './open-file.ts'

const places = (signal: AbortSignal): OpenPlaces => ({ spoolBytes: undefined, signal, onProgress: () => undefined })

test('who looks at the tables of a file says how far it is, and stops when it is told to', async (t) => {
  const path = await scratch(t)
  const disk = memorySource(2 ** 34, [{ offset: 2 ** 33, bytes: new Uint8Array(2 ** 20).fill(1) }])
  await writeSource(await wrapDisk('qcow2', disk), path('disk.qcow2'))
  const said: TransferState[] = []
  const unheard = new AbortController().signal
  const opened = await openDisk({ source: path('disk.qcow2') }, placesOf(places(unheard)), (state) => said.push(state))
  await opened.disk.close()
  assert.ok(said.length > 1 && said.every(({ totalBytes }) => totalBytes === null))
  assert.ok(said.every(({ doneBytes }, index) => index === 0 || doneBytes >= said[index - 1]!.doneBytes))

  for (const last of said.keys()) {
    const abort = new AbortController()
    let count = 0
    const until = () => {
      if (count === last) abort.abort(new Error(`after ${last}`))
      count += 1
    }
    const cut = openDisk({ source: path('disk.qcow2') }, placesOf(places(abort.signal)), until)
    if (last + 1 < said.length) await assert.rejects(cut, { message: `after ${last}` })
    else
      await cut.then(
        ({ disk: late }) => late.close(),
        () => undefined,
      )
  }
})
