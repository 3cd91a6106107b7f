import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Failpoint, failpoints } from '../../base/failpoint.ts'
import { fileOfSeed, openFsStore, recordsIn, uploadsIn } from './kill-child.suite.ts'
import { freshFolder, keysOf, readAll, these } from './random-files.suite.ts'

const child = join(import.meta.dirname, 'kill-child.suite.ts')

/** Runs the child until it is killed, by its failpoint or after so many records. @returns the signal that ended it */
function runUntilKilled(folder: string, failpoint: string, killAfterMs?: number): Promise<string | null> {
  const running = spawn(process.execPath, [child, folder], {
    env: { ...process.env, IMPRINT_FAILPOINT: failpoint },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (killAfterMs !== undefined) setTimeout(() => running.kill('SIGKILL'), killAfterMs)
  return new Promise((resolve) => running.once('exit', (_, signal) => resolve(signal)))
}

/** What must hold after any death: opens, nothing acknowledged is lost, and one collection leaves nothing else. */
async function assertSound(folder: string): Promise<void> {
  const { blobs, store, close } = await openFsStore(folder)
  try {
    const records = recordsIn(folder)
    for (const [manifest, seed] of records)
      assert.equal(Buffer.compare(await readAll(store, manifest), fileOfSeed(seed)), 0, `file ${seed} reads as it was sent`)
    for (const id of uploadsIn(folder)) {
      const upload = await store.resumeUpload(id).catch((error) => assert.equal(error.code, 'not-found'))
      await upload?.abandon()
    }
    await store.collect(() => these(...records.keys()))
    for (const [manifest, seed] of records) assert.equal(Buffer.compare(await readAll(store, manifest), fileOfSeed(seed)), 0)
    for await (const fault of store.check(() => these(...records.keys()))) assert.fail(fault.message)
    assert.equal((await store.stats()).manifests, records.size)
    for (const manifest of records.keys()) await store.drop(manifest)
    await store.collect(() => these())
    assert.deepEqual(await keysOf(blobs), ['store.json'], 'nothing leaks')
  } finally {
    await close()
  }
}

/** With the passing at which it kills: some steps come up first for `store.json`, or are more telling later. */
const killing: Partial<Record<Failpoint, number>> = {
  'blob:written': 2,
  'blob:synced': 3,
  'blob:renamed': 2,
  'blob:published': 3,
  'blob:deleted': 2,
  'pack:put': 2,
  'pack:indexed': 1,
  'chunks:claimed': 7,
  'manifest:pages-put': 2,
  'manifest:committed': 1,
  'collector:marked': 2,
  'collector:swept': 1,
  'collector:repacked': 2,
  'collector:pack-deleted': 2,
  'session:chunk-put': 2,
  'session:committed': 1,
}
const prefixes = ['blob:', 'pack:', 'chunks:', 'manifest:', 'collector:', 'session:']

test('every failpoint of the store is tried', () => {
  const ours = failpoints.filter((name) => prefixes.some((prefix) => name.startsWith(prefix)))
  assert.deepEqual(Object.keys(killing).sort(), [...ours].sort())
})

for (const [name, passing] of Object.entries(killing)) {
  test(`a kill at ${name} loses nothing acknowledged and leaks nothing`, async () => {
    const folder = freshFolder()
    assert.equal(await runUntilKilled(folder, `${name}:${passing}`), 'SIGKILL')
    await assertSound(folder)
  })
}

test('a folder survives one kill at a random time after another', async () => {
  const folder = freshFolder()
  for (let turn = 0; turn < 3; turn += 1)
    assert.equal(await runUntilKilled(folder, '', 600 + Math.floor(Math.random() * 1500)), 'SIGKILL')
  await assertSound(folder)
})
