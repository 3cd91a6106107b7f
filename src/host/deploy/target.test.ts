import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmod, mkdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { lacking, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { Target } from './target.ts'

/** Programs of this name are these scripts until the end of the test. */
async function programs(t: TestContext, scripts: Readonly<Record<string, string>>): Promise<void> {
  const path = await scratch(t)
  await mkdir(path('bin'))
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(path(`bin/${name}`), `#!/bin/sh\n${script}\n`)
    await chmod(path(`bin/${name}`), 0o755)
  }
  const before = process.env.PATH
  process.env.PATH = `${path('bin')}:${before}`
  t.after(() => {
    process.env.PATH = before
  })
}
const pipes = (...paths: readonly string[]) => execFileSync('mkfifo', [...paths])
const wish = { isReadOnly: false, leastBytes: 8 * MiB }
const tools = { skip: lacking('mkfifo', 'flock') }

/** A target of ones, and a program that says that it has begun and makes its zeros when it is told to. */
async function slowTarget(t: TestContext, signal?: AbortSignal) {
  const path = await scratch(t)
  await writeFile(path('target'), Buffer.alloc(8 * MiB, 1))
  pipes(path('begun'), path('go'))
  await programs(t, { fallocate: `echo > '${path('begun')}'; read _ < '${path('go')}'; exit 0`, blkdiscard: 'exit 1' })
  const target = await Target.open(path('target'), { ...wish, ...(signal ? { signal } : {}) })
  return { path: path('target'), target, begun: () => readFile(path('begun')), go: () => writeFile(path('go'), '\n') }
}

test('zeros that are being made end with the signal, and are not written by hand instead', tools, async (t) => {
  const stop = new AbortController()
  const { path, target, begun } = await slowTarget(t, stop.signal)
  await target.zero(0, 8 * MiB)
  const synced = assert.rejects(target.sync(), { code: 'cancelled', message: /give the same command again/ })
  await begun()
  stop.abort()
  await synced
  assert.ok((await readFile(path)).every((byte) => byte === 1))
  await target.close()
  const again = await Target.open(path, wish) // nobody is left who has it
  await again.close()
})

test('a program that is ended by a signal of others is not taken for one that cannot', async (t) => {
  const path = await scratch(t)
  await writeFile(path('target'), Buffer.alloc(8 * MiB, 1))
  await programs(t, { fallocate: 'kill -INT $$', blkdiscard: `: > '${path('tried')}'; exit 1` })
  const target = await Target.open(path('target'), wish)
  await target.zero(0, 8 * MiB)
  await assert.rejects(target.sync(), { code: 'cancelled' })
  await assert.rejects(stat(path('tried')), { code: 'ENOENT' })
  await target.close()
})

test('zeros that the medium cannot make are written, until the signal', async (t) => {
  const path = await scratch(t)
  await writeFile(path('target'), Buffer.alloc(8 * MiB, 1))
  const stop = new AbortController()
  await programs(t, { fallocate: 'exit 1', blkdiscard: 'exit 1' })
  const target = await Target.open(path('target'), { ...wish, signal: stop.signal })
  await target.zero(0, 4 * MiB)
  await target.sync()
  const half = Buffer.concat([Buffer.alloc(4 * MiB), Buffer.alloc(4 * MiB, 1)])
  assert.ok((await readFile(path('target'))).equals(half))
  stop.abort()
  await target.zero(4 * MiB, 4 * MiB)
  await assert.rejects(target.sync(), { code: 'cancelled' })
  assert.ok((await readFile(path('target'))).equals(half))
  await target.close()
})

test('zeros are asked for by half a GiB at a time, however they were found', async (t) => {
  const path = await scratch(t)
  const asked = async () => (await readFile(path('asked'), 'utf8')).split('\n').filter(Boolean).map(Number)
  await programs(t, { fallocate: `while [ "$1" != --length ]; do shift; done; echo "$2" >> '${path('asked')}'` })
  await writeFile(path('asked'), '')
  await writeFile(path('target'), '')
  await truncate(path('target'), 1200 * MiB)
  const target = await Target.open(path('target'), wish)
  for (let at = 0; at < 1200 * MiB; at += 4 * MiB) await target.zero(at, 4 * MiB)
  assert.deepEqual(await asked(), [512 * MiB, 512 * MiB])
  await target.sync()
  assert.deepEqual(await asked(), [512 * MiB, 512 * MiB, 176 * MiB])
  await target.close()
})

test('a file is written by one at a time; who was killed and left a program that makes zeros is one, too', tools, async (t) => {
  const { path, target, begun, go } = await slowTarget(t)
  await assert.rejects(Target.open(path, wish), { code: 'conflict', message: /in use: another deployment/ })
  await assert.rejects(Target.open(path, { ...wish, isReadOnly: true }), { code: 'conflict' })
  await target.zero(0, 8 * MiB)
  const synced = assert.rejects(target.sync(), { code: 'corrupt' }) // its descriptor is gone, as with a process
  await begun()
  await target.close()
  await assert.rejects(Target.open(path, wish), { code: 'conflict', message: /one that was killed/ })
  await go()
  await synced
  const next = await Target.open(path, wish)
  await next.close()
  const [one, two] = await Promise.all([1, 2].map(() => Target.open(path, { ...wish, isReadOnly: true })))
  await Promise.all([one!.close(), two!.close()])
})

test('where there are no locks a file is written all the same', async (t) => {
  const path = await scratch(t)
  await programs(t, { flock: 'exit 71' })
  const [one, two] = [await Target.open(path('target'), wish), await Target.open(path('target'), wish)]
  await one.close()
  await two.close()
})
