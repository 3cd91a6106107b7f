import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '../../base/units.ts'
import { bytesSource } from '../../disk/block/memory-source.ts'
import { openImage } from '../../disk/formats/index.ts'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { freshHome, run, userOf } from '../run-cli.suite.ts'
import { openSession } from '../session.ts'

const folder = mkdtempSync(join(tmpdir(), 'imprint-commands-'))
const main = new URL('../../main.ts', import.meta.url).pathname
let service: RealService
let admin: Environment

before(async () => {
  service = await startService()
  admin = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
})
after(async () => {
  await service.images.jobs.idle()
  await service.close()
})

/** The program itself, with something on its stdin. */
async function imprint(
  words: readonly string[],
  home: string,
  stdin = '',
): Promise<{ status: number | null; out: string; err: string }> {
  const { PATH, NODE_COMPILE_CACHE } = process.env
  const child = spawn(process.execPath, [main, ...words], { env: { PATH, NODE_COMPILE_CACHE, HOME: home }, stdio: 'pipe' })
  const said = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said.out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said.err += text
  })
  child.stdin.end(stdin)
  const [status] = await once(child, 'close')
  return { status, ...said }
}

async function addImage(name: string, environment: Environment, ...more: string[]): Promise<string> {
  const path = join(folder, randomBytes(6).toString('hex'))
  writeFileSync(path, randomBytes(MiB))
  const added = await run(['image', 'add', path, '--name', name, '--json', ...more], { environment })
  assert.equal(added.status, 0, added.err)
  return added.json.image.id
}

test('login keeps a credential that its owner alone can read, and the other commands use it until logout', async () => {
  const home = freshHome()
  const wrong = await imprint(['login', service.url, '--user', 'admin', '--password-stdin'], home, 'wrong\n')
  assert.equal(wrong.status, 4, wrong.err)
  const login = await imprint(['login', service.url, '--user', 'admin', '--password-stdin'], home, `${ADMIN_PASSWORD}\n`)
  assert.equal(login.status, 0, login.err)
  assert.match(login.out, /Logged in at http.* as admin, project admin/)
  const path = join(home, '.config/imprint/login.json')
  assert.equal(statSync(path).mode & 0o777, 0o600)
  assert.ok(!readFileSync(path, 'utf8').includes(ADMIN_PASSWORD))
  const environment = { HOME: home }
  assert.equal((await run(['whoami', '--json'], { environment })).json.user, 'admin')

  // the token is over, the credential is not
  const kept = JSON.parse(readFileSync(path, 'utf8'))
  writeFileSync(path, JSON.stringify({ ...kept, expiresAt: 0 }))
  assert.equal((await run(['whoami'], { environment })).status, 0)
  assert.notEqual(JSON.parse(readFileSync(path, 'utf8')).token, kept.token)

  assert.equal((await run(['logout'], { environment })).status, 0)
  assert.deepEqual(readdirSync(join(home, '.config/imprint')), [])
  assert.equal((await run(['whoami'], { environment })).status, 4)
  writeFileSync(path, JSON.stringify({ ...kept, expiresAt: 0 }))
  const after = await run(['whoami'], { environment })
  assert.equal(after.status, 4)
  assert.match(after.err, /has expired; log in again with: imprint login/)
})

test('a password is asked for only on a terminal', async () => {
  const asked = await imprint(['login', service.url, '--user', 'admin'], freshHome())
  assert.equal(asked.status, 1)
  assert.match(asked.err, /--password-stdin/)
})

test('an administrator makes a project and a user, who shares an image, and the others accept it', async () => {
  for (const project of ['web', 'ops'])
    assert.equal((await run(['project', 'create', project], { environment: admin })).status, 0)
  const home = freshHome()
  assert.equal((await imprint(['login', service.url, '--user', 'admin', '--password-stdin'], home, ADMIN_PASSWORD)).status, 0)
  for (const [name, project] of [
    ['ada', 'web'],
    ['bob', 'ops'],
  ]) {
    const created = await imprint(
      ['user', 'create', name!, '--project', project!, '--password-stdin'],
      home,
      'a long enough password\n',
    )
    assert.equal(created.status, 0, created.err)
  }
  const ada = userOf(service.url, 'ada', 'a long enough password', 'web')
  const bob = userOf(service.url, 'bob', 'a long enough password', 'ops')
  const id = await addImage('base', ada, '--visibility', 'private')
  const opsId = (await run(['whoami', '--json'], { environment: bob })).json.projectId

  assert.equal((await run(['image', 'show', id], { environment: bob })).status, 3)
  const byName = await run(['image', 'share', id, 'ops'], { environment: ada })
  assert.equal(byName.status, 4)
  assert.match(byName.err, /give its id/)
  assert.equal((await run(['image', 'share', 'base', opsId], { environment: ada })).status, 0)
  const pending = await run(['image', 'list', '--shared', 'pending', '--json'], { environment: bob })
  assert.deepEqual(
    pending.json.map((image: { id: string }) => image.id),
    [id],
  )
  assert.equal((await run(['image', 'accept', 'base'], { environment: bob })).status, 0)
  assert.equal((await run(['image', 'list', '--json'], { environment: bob })).json.length, 1)
  assert.match((await run(['image', 'members', 'base'], { environment: ada })).out, /accepted/)

  const shown = await run(['image', 'show', 'base', '--json'], { environment: bob })
  assert.equal(shown.json.sizes, null, 'what deleting would free is for the owner')
  assert.deepEqual(shown.json.parts, [])
  assert.equal((await run(['image', 'delete', 'base'], { environment: bob })).status, 4)
  assert.equal((await run(['image', 'reject', id], { environment: bob })).status, 0)
  assert.equal((await run(['image', 'unshare', 'base', opsId], { environment: ada })).status, 0)
  assert.equal((await run(['image', 'show', id], { environment: bob })).status, 3)

  for (const words of [
    ['store', 'stats'],
    ['store', 'gc'],
    ['store', 'check'],
    ['quota', 'set', opsId, '--images', '1'],
    ['user', 'list'],
  ]) {
    const denied = await run(words, { environment: bob })
    assert.equal(denied.status, 4, `${words.join(' ')}: ${denied.err}`)
  }
  assert.equal((await run(['quota', 'set', 'ops', '--images', '0'], { environment: admin })).status, 0)
  const path = join(folder, 'one-too-many')
  writeFileSync(path, randomBytes(1000))
  assert.equal((await run(['image', 'add', path], { environment: bob })).status, 6)
  assert.match((await run(['quota', 'show'], { environment: bob })).out, /images\s+0\s+0/)
})

test('a name that several images share is answered by their list', async () => {
  const ids = [await addImage('twin', admin), await addImage('twin', admin)]
  const shown = await run(['image', 'show', 'twin'], { environment: admin })
  assert.equal(shown.status, 5)
  for (const id of ids) assert.ok(shown.err.includes(id))
  assert.equal((await run(['image', 'show', ids[0]!], { environment: admin })).status, 0)
  assert.equal((await run(['image', 'show', 'nobody'], { environment: admin })).status, 3)
})

const hostileNames = [
  '\x1b[2J\x1b[31mred',
  'gpj.\u202eexe',
  'a\r\nINFO forged',
  '<img onerror=x>',
  '=cmd()',
  '🐧🐧',
  'a,b "c"',
  'in:x,y',
  'a:"b"',
  '../../etc/passwd',
  '-rf',
  '',
]
for (const name of hostileNames) {
  test(`an image named ${JSON.stringify(name)} is found by its name, and its name steers nothing`, async (t) => {
    const session = await openSession(admin)
    t.after(() => session.close())
    const { id } = await session.images.create({ name, disk_format: 'raw', container_format: 'bare' })
    const listed = await run(['image', 'list'], { environment: admin, isTerminal: false })
    const shown = await run(['image', 'show', id], { environment: admin })
    const json = await run(['image', 'show', id, '--json'], { environment: admin })
    assert.equal(json.json.name, name)
    for (const { out } of [listed, shown, json]) assert.doesNotMatch(out.replace(/\n/g, ''), /[\p{Cc}\u202a-\u202e]/u)
    if (name !== '') {
      const deleted = await run(['image', 'delete', '--', name], { environment: admin })
      assert.equal(deleted.status, 0, deleted.err)
      assert.doesNotMatch(deleted.out.replace(/\n/g, ''), /[\p{Cc}\u202a-\u202e]/u)
    }
  })
}

test('get writes nothing outside the folder it runs in, whatever the image is called', async () => {
  const id = await addImage('../../../tmp/escape', admin)
  const home = freshHome()
  const child = spawn(process.execPath, [main, 'image', 'get', id], {
    cwd: home,
    env: { ...admin } as NodeJS.ProcessEnv,
    stdio: 'pipe',
  })
  await once(child, 'close')
  assert.deepEqual(
    readdirSync(home).filter((name) => !name.startsWith('.')),
    ['tmp-escape.raw'],
  )
})

test('a download that was interrupted goes on where it stopped, and is verified', async () => {
  const path = join(folder, 'large')
  writeFileSync(path, randomBytes(24 * MiB))
  const added = await run(['image', 'add', path, '--json'], { environment: admin })
  await service.images.jobs.idle()
  const to = join(folder, 'large.back')
  const stop = new AbortController()
  const onErr = (text: string) => {
    if (text.includes('progress')) stop.abort()
  }
  const words = ['image', 'get', added.json.image.id, to, '--json']
  assert.equal((await run(words, { environment: admin, signal: stop.signal, onErr })).status, 130)
  const kept = statSync(`${to}.part`).size
  assert.ok(kept > 0 && kept < 24 * MiB)
  const got = await run(words, { environment: admin })
  assert.equal(got.status, 0, got.err)
  assert.deepEqual([got.json.resumedBytes, got.json.verified], [kept, 'sha512'])
  assert.ok(readFileSync(to).equals(readFileSync(path)))
  assert.equal((await run(words, { environment: admin })).status, 5, 'it exists now')
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.includes('.part')),
    [],
  )
})

test('a compressed form is waited for in sight of its progress, and goes on where it stopped', async () => {
  const path = join(folder, 'compressed')
  writeFileSync(path, randomBytes(24 * MiB))
  const { id } = (await run(['image', 'add', path, '--json'], { environment: admin })).json.image
  await service.images.jobs.idle()
  const [to, again] = [join(folder, 'compressed.qcow2'), join(folder, 'again.qcow2')]
  const words = (file: string) => ['image', 'get', id, file, '--format', 'qcow2:zstd', '--json']
  const { promise: turn, reject: endTurn } = Promise.withResolvers<never>()
  const other = { owner: '', writer: { pack: () => [] as never }, open: () => turn }
  const otherEnds = assert.rejects(service.images.packed.get('other', other, { signal: AbortSignal.timeout(60_000) }))
  const phases = new Set<string>()
  const onErr = (text: string) => {
    for (const [, phase = ''] of text.matchAll(/"phase":"([^"]+)"/g)) phases.add(phase)
    if (phases.has('Waiting for its turn')) endTurn(new Error('over'))
  }
  const got = await run(words(to), { environment: admin, onErr })
  await otherEnds
  assert.equal(got.status, 0, got.err)
  assert.ok(phases.has('Waiting for its turn'))
  const disk = await openImage('qcow2', bytesSource(readFileSync(to)))
  assert.ok(readFileSync(path).equals(await disk.read(0, disk.size)))

  const stop = new AbortController()
  const cut = await run(words(again), { environment: admin, signal: stop.signal, onErr: () => stop.abort() })
  assert.equal(cut.status, 130)
  const kept = statSync(`${again}.part`).size
  assert.ok(kept > 0 && kept < got.json.bytes)
  const rest = await run(words(again), { environment: admin })
  assert.deepEqual([rest.status, rest.json.resumedBytes, rest.json.bytes], [0, kept, got.json.bytes])
  assert.ok(readFileSync(again).equals(readFileSync(to)))
})

for (const [what, etag] of [
  ['of another edition', '\n"another"'],
  ['of which nobody said the edition', ''],
] as const) {
  test(`a part of a converted file ${what} is not gone on with`, async () => {
    const id = await addImage('edition', admin)
    await service.images.jobs.idle()
    const to = join(folder, 'edition.vhd')
    const image = (await run(['image', 'show', id, '--json'], { environment: admin })).json
    writeFileSync(`${to}.part`, Buffer.alloc(1000, 7))
    const note = { imageId: id, format: 'vhd', etag: image.hashValue, updatedAt: '' }
    writeFileSync(`${to}.part-of`, `${JSON.stringify(note)}${etag}`)
    const got = await run(['image', 'get', id, to, '--format', 'vhd', '--force', '--json'], { environment: admin })
    assert.deepEqual([got.status, got.json.resumedBytes], [0, 0], got.err)
    const disk = await openImage('vhd', bytesSource(readFileSync(to)))
    assert.ok(disk.size >= MiB)
  })
}

test('bytes that are not those of the image are thrown away', async () => {
  const id = await addImage('changed', admin)
  await service.images.jobs.idle()
  const to = join(folder, 'changed.back')
  const image = (await run(['image', 'show', id, '--json'], { environment: admin })).json
  writeFileSync(`${to}.part`, Buffer.alloc(1000, 7))
  writeFileSync(`${to}.part-of`, JSON.stringify({ imageId: id, format: null, etag: image.hashValue, updatedAt: '' }))
  const got = await run(['image', 'get', id, to], { environment: admin })
  assert.equal(got.status, 1)
  assert.match(got.err, /thrown away/)
  assert.equal((await run(['image', 'get', id, to], { environment: admin })).status, 0)
})

test('delete says what it frees before and after, and refuses what is protected', async () => {
  const id = await addImage('old', admin, '--protected')
  const refused = await run(['image', 'delete', 'old'], { environment: admin })
  assert.equal(refused.status, 4)
  assert.match(refused.err, /--unprotected/)
  assert.equal((await run(['image', 'set', 'old', '--unprotected'], { environment: admin })).status, 0)
  const plan = (await run(['image', 'delete', 'old', '--dry-run', '--json'], { environment: admin })).json
  assert.deepEqual([plan.deleted, plan.images[0].id], [false, id])
  assert.ok(plan.images[0].freesBytes >= MiB)
  assert.equal((await run(['image', 'delete', 'old'], { environment: admin })).status, 0)
  const collected = (await run(['store', 'gc', '--json'], { environment: admin })).json
  assert.ok(collected.bytesFreed >= plan.images[0].freesBytes)
  const audit = (await run(['image', 'audit', id, '--json'], { environment: admin })).json
  assert.deepEqual([audit.entries[0].action, audit.entries[0].userName], ['delete', 'admin'])
})

test('set, tag, untag, deactivate and reactivate change what they say', async () => {
  const id = await addImage('plain', admin)
  const say = async (...words: string[]) => {
    const said = await run(words, { environment: admin })
    assert.equal(said.status, 0, said.err)
  }
  await say(
    'image',
    'set',
    id,
    '--name',
    'fancy',
    '--property',
    'a/b~c=1',
    '--property',
    'os_distro=debian',
    '--min-disk',
    '2',
    '--hidden',
  )
  await say('image', 'tag', id, 'x', 'y/z')
  await say('image', 'untag', id, 'x')
  await say('image', 'deactivate', 'fancy')
  const image = (await run(['image', 'show', id, '--json'], { environment: admin })).json
  assert.deepEqual(
    [image.name, image.minDiskGb, image.hidden, image.tags, image.status],
    ['fancy', 2, true, ['y/z'], 'deactivated'],
  )
  assert.equal(image.properties['a/b~c'], '1')
  await say('image', 'reactivate', id)
  await say('image', 'set', id, '--unset-property', 'a/b~c', '--shown')
  assert.equal((await run(['image', 'set', id], { environment: admin })).status, 2)
})

test('store check finds no damage, rebuild indexes every pack, status shows both', async () => {
  await addImage('whole', admin)
  const checked = await run(['store', 'check', '--read-data', '--json'], { environment: admin })
  assert.deepEqual([checked.status, checked.json.faults], [0, []])
  const rebuilt = (await run(['store', 'rebuild', '--json'], { environment: admin })).json
  const stats = (await run(['store', 'stats', '--json'], { environment: admin })).json
  assert.ok(rebuilt.chunks > 0 && stats.chunks > 0)
  assert.equal((await run(['status', '--json'], { environment: admin })).json.version, '0.0.0-test')
})
