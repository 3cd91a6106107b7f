import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { hostileCases } from '../../../test/fixtures/disk/hostile.ts'
import { openLocalImage } from './local-image.ts'

test('what only the tables of a disk show to be hostile is refused before anything of it is sent, in a package as well', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'local-image-'))
  await using kept = new AsyncDisposableStack()
  kept.defer(() => rm(folder, { recursive: true, force: true }))
  const hostile = hostileCases().find(({ name }) => name === 'two L2 entries to one cluster')
  assert.ok(hostile)
  const bytes = await hostile.file.read(0, hostile.file.size)
  const path = join(folder, 'disk.qcow2')
  const options = { asFile: false, maxBytes: 2 ** 24, signal: new AbortController().signal, onProgress: () => undefined }
  for (const file of [bytes, gzipSync(bytes)]) {
    await writeFile(path, file)
    await assert.rejects(openLocalImage(path, options), { code: 'invalid-image', message: /in use already/ })
  }
})
