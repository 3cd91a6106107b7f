/** `imprint deploy` as a program beside the running service: killed at each of its steps, and what it wrote started as a machine. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import { failpoints } from '../../src/base/failpoint.ts'
import { ImageRequests, noise } from '../durability/image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from '../durability/mortal-service.ts'
import { scratch } from '../fixtures/disk/tools.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { cast } from '../peers/identity-client.ts'

const MiB = 1024 * 1024
const HEAD_BYTES = 65_536
const main = resolve(import.meta.dirname, '../../src/main.ts')
const image = Buffer.concat([noise(1, 17 * MiB), Buffer.alloc(4 * MiB), noise(2, 3 * MiB + 512)])

let folder = ''
let service: MortalService
let requests: ImageRequests
before(async () => {
  folder = await folderInMemory('deploy')
  service = await startMortal(folder)
  requests = new ImageRequests(service.address, await adminToken(service))
})
after(async () => {
  await service?.stop()
  await removeFolder(folder)
})
async function newImage(bytes: Buffer): Promise<string> {
  const id = randomUUID()
  await requests.create(id, 'deployed')
  await requests.send(id, new Uint8Array(bytes))
  return id
}

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly err: string
  // biome-ignore lint/suspicious/noExplicitAny: what a program would read
  readonly json: any
}
async function deploy(id: string, to: string, env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const child = spawn(process.execPath, [main, 'deploy', id, '--to', to, '--yes', '--json'], {
    env: {
      ...process.env,
      NODE_TEST_CONTEXT: undefined,
      OS_AUTH_URL: `${service.address}/identity/v3`,
      OS_USERNAME: cast.admin.user,
      OS_PASSWORD: cast.admin.password,
      OS_PROJECT_NAME: cast.admin.project,
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const said = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text) => (said.out += text))
  child.stderr.setEncoding('utf8').on('data', (text) => (said.err += text))
  const [code, signal] = await once(child, 'close')
  return { code, signal, err: said.err, json: said.out === '' ? undefined : JSON.parse(said.out) }
}

test('killed at any step it leaves a disk without a head or the whole image, and the next run goes on', async (t) => {
  const path = await scratch(t)
  const id = await newImage(image)
  const steps = failpoints.filter((name) => name.startsWith('deploy:'))
  assert.ok(steps.length >= 5)
  for (const step of steps.flatMap((name) => (name === 'deploy:window-written' ? [name, `${name}:4`] : [name]))) {
    await writeFile(path('disk'), noise(3, image.length + MiB))
    const killed = await deploy(id, path('disk'), { IMPRINT_FAILPOINT: step })
    assert.equal(killed.signal, 'SIGKILL', `${step}: ${killed.err}`)
    const left = await readFile(path('disk'))
    const head = left.subarray(0, step === 'deploy:head-written' ? 512 : HEAD_BYTES)
    assert.ok(
      head.every((byte) => byte === 0),
      `${step}: no firmware starts from it`,
    )
    const finished = await deploy(id, path('disk'))
    assert.equal(finished.code, 0, `${step}: ${finished.err}`)
    const whole = await readFile(path('disk'))
    assert.ok(whole.subarray(0, image.length).equals(image), step)
    assert.ok(whole.subarray(image.length).equals(noise(3, image.length + MiB).subarray(image.length)), step)
    if (step === 'deploy:verified') assert.equal(finished.json.writtenBytes, HEAD_BYTES, 'only the head was left to do')
  }
})

test('the service is killed in the middle and started again: the deployment sits it out', async (t) => {
  const path = await scratch(t)
  const big = noise(7, 128 * MiB)
  const id = await newImage(big)
  const going = deploy(id, path('disk'))
  while (((await stat(path('disk')).catch(() => undefined))?.blocks ?? 0) < 8192) await new Promise(setImmediate) // 4 MiB
  const listen = new URL(service.address).host
  await service.kill()
  service = await startMortal(folder, { IMPRINT_LISTEN: listen })
  const { code, err } = await going
  assert.equal(code, 0, err)
  assert.ok((await readFile(path('disk'))).equals(big))
})

/** A machine of QEMU's, in emulation. */
async function startsTo(t: TestContext, words: readonly string[], line: RegExp): Promise<string> {
  const base = [
    '-accel',
    'tcg',
    '-m',
    '256',
    '-display',
    'none',
    '-serial',
    'stdio',
    '-monitor',
    'none',
    '-nic',
    'none',
    '-no-reboot',
  ]
  const child: ChildProcess = spawn('qemu-system-x86_64', [...base, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  t.after(async () => {
    child.kill('SIGKILL')
    await ended
  })
  let heard = ''
  for await (const piece of child.stdout!) {
    heard += piece
    if (line.test(heard)) break
  }
  return heard
}

test('what was deployed onto a blank, larger disk starts', { skip: noTinyGuest() }, async (t) => {
  const path = await scratch(t)
  const id = await newImage(await readFile(await tinyGuest()))
  await writeFile(path('disk'), '')
  await truncate(path('disk'), 100 * MiB)
  const { code, err } = await deploy(id, path('disk'))
  assert.equal(code, 0, err)
  const heard = await startsTo(t, ['-drive', `file=${path('disk')},format=raw,if=virtio`], /^ready/m)
  assert.match(heard, /guest boots=1 /)
})
