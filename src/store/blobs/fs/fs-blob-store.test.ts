import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { blobStoreSuite } from '../blob-store.suite.ts'
import { type Fault, faultyFiles } from './faulty-files.suite.ts'
import { type FileFunctions, FsBlobStore } from './fs-blob-store.ts'

const opened: FsBlobStore[] = []
const open = async (root: string, files?: FileFunctions) => {
  const store = await FsBlobStore.open(root, files)
  opened.push(store)
  return store
}
after(() => Promise.all(opened.map((store) => store.close())))

const freshFolder = () => mkdtemp(join(tmpdir(), 'imprint-blobs-'))

blobStoreSuite('fs', async () => open(await freshFolder()))
blobStoreSuite('fs with writes that end early', async () => {
  const shortWrites = faultyFiles({ everyWriteAtMost: 1000 })
  return open(await freshFolder(), shortWrites.files)
})

test('fs keeps folders and files to itself', async () => {
  const root = await freshFolder()
  const store = await open(join(root, 'store'))
  await store.put('packs/ab/cd', [Uint8Array.of(1)])
  for (const folder of ['store', 'store/packs', 'store/packs/ab', 'store/.unfinished'])
    assert.equal((await stat(join(root, folder))).mode & 0o777, 0o700)
  assert.equal((await stat(join(root, 'store/packs/ab/cd'))).mode & 0o777, 0o600)
})

test('fs sweeps what an earlier process left unfinished', async () => {
  const root = await freshFolder()
  await mkdir(join(root, '.unfinished'))
  await writeFile(join(root, '.unfinished', 'half'), 'half a pack')
  await open(root)
  assert.deepEqual(await readdir(join(root, '.unfinished')), [])
})

const faults: readonly { name: string; code: string; answer: string }[] = [
  { name: 'a full disk', code: 'ENOSPC', answer: 'no-space' },
  { name: 'a quota', code: 'EDQUOT', answer: 'no-space' },
  { name: 'a broken disk', code: 'EIO', answer: 'unavailable' },
]
const keysOf = async (store: FsBlobStore) => {
  const keys: string[] = []
  for await (const key of store.list('')) keys.push(key)
  return keys
}

for (const { name, code, answer } of faults) {
  test(`fs turns ${name} at any step of a put into "${answer}" and leaves no trace`, async () => {
    for (let failAt = 1; ; failAt += 1) {
      const root = await freshFolder()
      const calm = await open(root)
      await calm.put('a/old', [Uint8Array.of(1)])
      const fault: Fault = { failAt: Number.POSITIVE_INFINITY, code }
      const faulty = faultyFiles(fault)
      const store = await open(root, faulty.files)
      fault.failAt = faulty.calls() + failAt
      const put = store.put('a/b/new', [new Uint8Array(100).fill(7), new Uint8Array(5000).fill(8)])
      const error = await put.then(
        () => null,
        (reason) => reason,
      )
      if (error === null) {
        if (faulty.failed()) continue // the fault met the removal of the unfinished file, which may wait for the next sweep
        assert.ok(failAt > 8, `a put has more than ${failAt} steps that can fail`)
        return
      }
      assert.equal(error.code, answer, error.message)
      const reopened = await open(root)
      assert.deepEqual(await keysOf(reopened), ['a/old'], `after a fault at step ${failAt}: ${faulty.failed()}`)
      assert.deepEqual(await readdir(join(root, '.unfinished')), [])
      await reopened.put('a/b/new', [Uint8Array.of(9)])
      assert.deepEqual([...(await reopened.get('a/b/new'))], [9])
    }
  })
}

test('fs never retries an fsync that failed', async () => {
  const fault: Fault = { failAt: 1, code: 'EIO', only: 'sync' }
  const root = await freshFolder()
  await open(root)
  const faulty = faultyFiles(fault)
  fault.failAt = Number.POSITIVE_INFINITY
  const store = await open(root, faulty.files)
  fault.failAt = faulty.calls() + 1
  await assert.rejects(store.put('key', [Uint8Array.of(1)]), { code: 'unavailable' })
  assert.equal(faulty.calls(), fault.failAt, 'one sync was tried, and no other after it')
  assert.deepEqual(await keysOf(store), [])
})
