import assert from 'node:assert/strict'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { scratch } from '../../../../test/fixtures/disk/tools.ts'
import { isAlive, isGone, killProcess, readIdentity, startProcess, takeIdentity } from './process.ts'

async function place(context: TestContext) {
  const at = await scratch(context)
  await mkdir(at('run'))
  const start = async (...command: [string, ...string[]]) => {
    const words = await open(at('words'), 'a')
    const identity = { path: at('process'), name: '../process' }
    return startProcess(command, { folder: at('run'), identity, words }).finally(() => words.close())
  }
  return { at, start }
}

test('a process is found by what it wrote before it became the program, and outlives nobody who is asked to kill it', async (context) => {
  const { at, start } = await place(context)
  const { ended } = await start('sh', '-c', 'echo ready; exec sleep 1000')
  while (!(await readFile(at('words'), 'utf8')).includes('ready'));
  const identity = await readIdentity(at('process'))
  assert.ok(identity && (await isAlive(identity)))
  assert.equal(await isGone(identity, 1), false)
  assert.deepEqual(
    await readFile(join('/proc', String(identity.pid), 'environ'), 'utf8').then((text) => text.includes('HOME=')),
    false,
  )
  await killProcess(identity)
  assert.equal(await ended, 'signal SIGKILL')
  assert.equal(await isAlive(identity), false)
  await killProcess(identity)
})

test('another process of the same number is not taken for it', async (context) => {
  const { at } = await place(context)
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  const stat = await readFile('/proc/self/stat', 'utf8')
  await writeFile(at('process'), `${boot}\n${stat}`)
  const self = await readIdentity(at('process'))
  assert.ok(self && (await isAlive(self)))
  assert.equal(await isAlive({ ...self, startTicks: '1' }), false)
  assert.equal(await isAlive({ ...self, bootId: 'another' }), false)
  await killProcess({ ...self, startTicks: '1' }) // we are still here
})

test('whose identity was taken before it wrote it never becomes the program', async (context) => {
  const { at, start } = await place(context)
  const outcomes: boolean[] = []
  for (let round = 0; round < 20; round += 1) {
    const started = start('sh', '-c', `echo ${round} >>../ran; exec sleep 1000`)
    // taken at all moments of a start: before the file is made, before it is written, after
    for (let turn = 0; turn < round; turn += 1) await new Promise((done) => setImmediate(done))
    const { ended } = await started
    const identity = await takeIdentity(at('process'))
    if (identity) await killProcess(identity)
    outcomes.push(identity !== null)
    // one that has written it may still see that it was taken, and end by itself before it is killed
    assert.match(await ended, identity ? /SIGKILL|exit status 1/ : /exit status 1/)
  }
  assert.ok(outcomes.length === 20)
})

for (const [what, text] of [
  ['nothing', ''],
  ['half of it', 'boot\n'],
  ['no number', 'boot\nx (sh) S 1'],
  ['the first process', `boot\n1 (init) S${' 0'.repeat(40)}`],
] as const) {
  test(`${what} in the file is no identity`, async (context) => {
    const { at } = await place(context)
    await writeFile(at('process'), text)
    assert.equal(await readIdentity(at('process')), null)
    assert.equal(await takeIdentity(at('process')), null)
    assert.equal(await takeIdentity(at('process')), null)
  })
}
