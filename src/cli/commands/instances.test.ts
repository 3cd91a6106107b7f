/** The commands for instances against a real service, whose machines are in memory. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '../../base/units.ts'
import { plainGuest } from '../../instances/hypervisor/memory/memory-host.ts'
import { newsOf } from '../console/follow-log.ts'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'

const folder = mkdtempSync(join(tmpdir(), 'imprint-instances-'))
const main = new URL('../../main.ts', import.meta.url).pathname
let service: RealService
let admin: Environment

before(async () => {
  service = await startService()
  admin = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
  await addImage('tiny')
})
after(async () => {
  await service.instances.tasks.idle()
  await service.images.jobs.idle()
  await service.close()
})

async function addImage(name: string, ...more: string[]): Promise<string> {
  const path = join(folder, randomBytes(6).toString('hex'))
  writeFileSync(path, randomBytes(MiB))
  const added = await run(['image', 'add', path, '--name', name, '--json', ...more], { environment: admin })
  assert.equal(added.status, 0, added.err)
  return added.json.image.id
}
async function did(...words: string[]) {
  const said = await run(words, { environment: admin })
  assert.equal(said.status, 0, `${words.join(' ')}: ${said.err}`)
  return said
}
const json = async (...words: string[]) => (await did(...words, '--json')).json
const stateOf = async (name: string) => /^state +(.*)$/m.exec((await did('show', name)).out)?.[1]

test('run starts an instance on the smallest flavor, and tells where its ports are', async () => {
  const script = join(folder, 'setup.sh')
  writeFileSync(script, '#!/bin/sh\n')
  const said = await did('run', 'tiny', '--name', 'web', '--port', '8080:80', '--port', '53/udp', '--user-data', script)
  assert.match(said.out, /^web \([0-9a-f-]{36}\) runs, after \d+ s: m1\.tiny, 127\.0\.0\.1:8080→80 127\.0\.0\.1:\d+→53\/udp\.\n$/)
  assert.match(said.err, /imprint console web/)
  const { id, forwards } = await json('show', 'web')
  assert.deepEqual(forwards[0], { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 8080, guestPort: 80 })
  assert.equal(Buffer.from(service.host.machine(id).spec.seed!.userData).toString(), '#!/bin/sh\n')
  const table = (await did('ps')).out.split('\n')
  assert.match(table[0]!, /^NAME +ID +IMAGE +FLAVOR +STATE +PORTS +AGE$/)
  assert.match(table[1]!, new RegExp(`^web +${id.slice(0, 8)} +tiny +m1\\.tiny +running +127\\.0\\.0\\.1:8080→80 .* \\d+ s$`))
})

test('several at once are numbered, and one without a network has no ports', async () => {
  const made = await json('run', 'tiny', '--name', 'many', '--count', '3', '--network', 'none')
  assert.deepEqual(
    made.map(({ name, forwards }: { name: string; forwards: unknown[] }) => [name, forwards.length]),
    [
      ['many-1', 0],
      ['many-2', 0],
      ['many-3', 0],
    ],
  )
  await did('rm', 'many-1', 'many-2', 'many-3')
  assert.ok(!(await did('ps', '--all')).out.includes('many'))
})

test('stop, start, pause, unpause, restart, by name or by how an id begins; what is off is shown with --all', async () => {
  const { id } = (await json('run', 'tiny', '--name', 'db'))[0]
  assert.match((await did('stop', 'db')).out, /^Stopped db \(/)
  assert.ok(!(await did('ps')).out.includes('db'))
  assert.match((await did('ps', '--all')).out, /^db .* off/m)
  await did('start', id.slice(0, 8))
  await did('pause', id)
  assert.equal(await stateOf('db'), 'paused')
  await did('unpause', 'db')
  await did('restart', 'db')
  await did('restart', 'db', '--hard')
  assert.equal(service.host.machine(id).boots, 4)
  assert.equal(await stateOf('db'), 'running')
  const told = await json('events', 'db')
  assert.deepEqual(
    told.map(({ action }: { action: string }) => action),
    ['reboot', 'reboot', 'unpause', 'pause', 'start', 'stop', 'create'],
  )
  const again = await run(['start', 'db'], { environment: admin })
  assert.equal(again.status, 5)
  assert.match(again.err, /Cannot 'start' instance/)
  await did('rm', 'db')
  assert.equal((await run(['show', 'db'], { environment: admin })).status, 3)
})

test('instances that share a name are told apart by their ids', async () => {
  for (let n = 0; n < 2; n += 1) await did('run', 'tiny', '--name', 'twin')
  const said = await run(['stop', 'twin'], { environment: admin })
  assert.equal(said.status, 5)
  const ids = [...said.err.matchAll(/^ {2}([0-9a-f-]{36}) /gm)].map(([, id]) => id!)
  assert.equal(ids.length, 2)
  await did('rm', ...ids)
})

test('a console types, and hears, and a pipe ends it; another one takes it over', async () => {
  const environment = { ...admin, PATH: process.env.PATH } as NodeJS.ProcessEnv
  const open = () => spawn(process.execPath, [main, 'console', 'web'], { env: environment, stdio: 'pipe' })
  const first = open()
  first.stdin.write('typed\n')
  await heard(first.stdout, 'typed\n')
  const second = open()
  second.stdin.end('by another\n')
  const [[status], , [ended]] = await Promise.all([
    once(first, 'close'),
    heard(second.stdout, 'by another\n'),
    once(second, 'close'),
  ])
  assert.deepEqual([status, ended], [5, 0])
  const third = open()
  await heard(third.stderr.resume() && third.stdout, '', third)
  third.kill('SIGTERM')
  assert.deepEqual(await once(third, 'close'), [130, null])
})
/** Settles when `stream` has said `words`; with none, when the console is open. */
async function heard(stream: NodeJS.ReadableStream, words: string, child?: { stdin: NodeJS.WritableStream }): Promise<void> {
  const wanted = words || `open-${randomBytes(4).toString('hex')}\n`
  child?.stdin.write(wanted)
  let said = ''
  for await (const text of stream.setEncoding('utf8')) {
    said += String(text)
    if (said.includes(wanted)) return
  }
  assert.fail(`it ended before it said ${wanted}: ${said}`)
}

test('logs shows what the guest said, harmless for a terminal, and follows it until it is off', async () => {
  const [{ id }] = await json('run', 'tiny', '--name', 'talker')
  const machine = service.host.machine(id)
  machine.print('\x1b[31mred\x1b[0m\r\ntwo\n\x1b]0;title\x07three\x07\n')
  assert.equal((await did('logs', 'talker')).out, 'ready\nred\ntwo\nthree\\x07\n')
  assert.equal((await did('logs', 'talker', '--lines', '1')).out, 'three\\x07\n')
  assert.equal((await json('logs', 'talker')).output.includes('\x1b[31m'), true)
  const child = spawn(process.execPath, [main, 'logs', 'talker', '--follow', '--lines', '1'], {
    env: { ...admin, PATH: process.env.PATH } as NodeJS.ProcessEnv,
    stdio: 'pipe',
  })
  let said = ''
  for await (const text of child.stdout.setEncoding('utf8')) {
    said += String(text)
    if (said === 'three\\x07\n') machine.print('four\n')
    if (said.endsWith('four\n')) machine.powerOff()
  }
  assert.equal(said, 'three\\x07\nfour\n')
})

test('what is new in a log that loses its beginning is found by the end of what was known', () => {
  assert.equal(newsOf('one\n', 'one\ntwo\n'), 'two\n')
  assert.equal(newsOf(`${'x'.repeat(5000)}end\n`, `${'x'.repeat(3000)}end\nnew\n`), 'new\n')
  assert.equal(newsOf('gone\n', 'all is new\n'), 'all is new\n')
})

test('keys: add, list, rm, and run with one', async () => {
  const file = join(folder, 'key.pub')
  const line = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7ZkzP6ZkqNUQCWxX0Mr3vFA8v5hVYDyKEHc9nNFwmp ann@laptop'
  writeFileSync(file, `${line}\n`)
  await did('keypair', 'add', 'laptop', file)
  assert.match((await did('keypair', 'list')).out, /^laptop +([0-9a-f]{2}:){15}[0-9a-f]{2} +ssh-ed25519$/m)
  const [{ id }] = await json('run', 'tiny', '--name', 'keyed', '--key', 'laptop')
  assert.match(service.host.machine(id).spec.seed!.metaData, /ann@laptop/)
  await did('keypair', 'rm', 'laptop')
  assert.equal((await json('keypair', 'list')).length, 0)
  await did('rm', 'keyed')
})

test('a system is run with a key of its own, a way to its SSH, and waited for until it asks for a login', async () => {
  await addImage('debian-12', '--property', 'os_distro=debian', '--property', 'os_version=12', '--property', 'os_admin_user=deb')
  service.host.guest = {
    ...plainGuest,
    booted: (machine) => void setImmediate(() => machine.print('Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login: ')),
  }
  const said = await did('run', 'debian', '--name', 'system')
  const key = join(admin.HOME!, '.config/imprint/id_ed25519')
  const port = /127\.0\.0\.1:(\d+)→22/.exec(said.out)?.[1]
  assert.ok(said.err.includes(`ssh -i ${key} -p ${port} deb@127.0.0.1`), said.err)
  assert.equal(statSync(key).mode & 0o777, 0o600)
  const { id } = await json('show', 'system')
  const [, publicKey] = readFileSync(`${key}.pub`, 'utf8').split(' ')
  assert.ok(service.host.machine(id).spec.seed!.metaData.includes(publicKey!))
  await did('run', 'debian:12', '--name', 'again')
  assert.equal((await json('keypair', 'list')).length, 1, 'the same key serves')

  mkdirSync(join(admin.HOME!, '.ssh'))
  const mine = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7ZkzP6ZkqNUQCWxX0Mr3vFA8v5hVYDyKEHc9nNFwmp'
  writeFileSync(join(admin.HOME!, '.ssh/id_ed25519.pub'), `${mine} me@here\n`)
  const [own] = await json('run', 'debian-12', '--name', 'mine')
  assert.match(own.ssh, /^ssh -p \d+ deb@127\.0\.0\.1$/)
  assert.ok(service.host.machine(own.id).spec.seed!.metaData.includes(mine))
  service.host.guest = plainGuest
  await did('rm', 'system', 'again', 'mine')
})

const wrong: readonly [string, readonly string[], number, RegExp][] = [
  ['an image of nobody', ['run', 'none-such'], 3, /there is no image "none-such"/],
  ['a distribution that is not here', ['run', 'alpine'], 3, /imprint run alpine --pull brings Alpine Linux from dl-cdn/],
  ['a flavor of nobody', ['run', 'tiny', '--flavor', 'huge'], 3, /there are: m1\.tiny, m1\.small/],
  ['a port that is none', ['run', 'tiny', '--port', 'http'], 2, /--port takes HOST:GUEST/],
  ['a port of the host beyond all', ['run', 'tiny', '--port', '70000:80'], 2, /--port takes/],
  ['a port without a network', ['run', 'tiny', '--port', '80', '--network', 'none'], 2, /--port needs a network/],
  ['a console of several', ['run', 'tiny', '--count', '2', '--console'], 2, /--console is for one/],
  ['an unknown key', ['run', 'tiny', '--key', 'none'], 1, /no keypair "none"/],
  ['an instance of nobody', ['console', 'none-such'], 3, /imprint ps --all shows them/],
]
for (const [name, words, status, says] of wrong) {
  test(`${name} is told in words that help`, async () => {
    const said = await run(words, { environment: admin })
    assert.equal(said.status, status, said.err)
    assert.match(said.err, says)
  })
}

test('flavors are listed, the smallest first', async () => {
  const [first] = await json('flavor', 'list')
  assert.deepEqual([first.name, first.ramMiB, first.vcpus], ['m1.tiny', 512, 1])
  assert.match((await did('flavor', 'list')).out, /^m1\.tiny +1 +512 MiB +1 GiB +1$/m)
})
