/** Sessions of the NBD server with the clients that people have: libnbd's, QEMU's, nbdkit's and fio's. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import type { NbdTls } from '../../src/serve/nbd/tls.ts'
import { MemoryBlobStore } from '../../src/store/blobs/memory/memory-blob-store.ts'
import { SqliteChunkIndex } from '../../src/store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../../src/store/chunks/open.ts'
import { digestOf, randomDisk, writeSource } from '../fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'
import { memoryDisk } from '../fixtures/nbd/memory-disk.ts'
import { nbdService } from '../fixtures/nbd/nbd-service.ts'
import { certificates, preSharedKeys } from '../fixtures/nbd/tls-keys.ts'

const MiB = 1024 * 1024
const SIZE = 64 * MiB
const HANDLE = 'b0f1c2 handle/with ünusual=signs'
const image = () => randomDisk(SIZE, 40, 11)

test('nbdinfo shows what an export is and offers, and lists only what may be listed', { skip: lacking('nbdinfo') }, async (t) => {
  const disk = memoryDisk(SIZE)
  const { uri, open } = await nbdService(t, {
    [HANDLE]: { source: image(), description: 'Debian 12' },
    writable: { ...disk, prefetch: async () => {}, isListed: true },
  })
  const shown = JSON.parse(await run('nbdinfo', '--json', uri(HANDLE)))
  const { 'export-size': size, description, is_read_only, can_multi_conn, can_df, contexts } = shown.exports[0]
  assert.deepEqual([size, description, is_read_only, can_multi_conn, can_df], [SIZE, 'Debian 12', true, true, true])
  assert.deepEqual(contexts, ['base:allocation'])
  const writable = JSON.parse(await run('nbdinfo', '--json', uri('writable'))).exports[0]
  for (const what of ['can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_fast_zero', 'can_cache'])
    assert.equal(writable[what], true, what)
  const listed = JSON.parse(await run('nbdinfo', '--json', '--list', uri('writable')))
  assert.deepEqual(
    listed.exports.map((each: { 'export-name': string }) => each['export-name']),
    ['writable'],
  )
  await assert.rejects(run('nbdinfo', uri('guessed')), /no such export|not found|No such/i)
  assert.equal(open(), 0)
})

test('nbdinfo --map shows the holes of an image', { skip: lacking('nbdinfo') }, async (t) => {
  const source = image()
  const { uri } = await nbdService(t, { disk: { source } })
  const map: { offset: number; length: number; type: number }[] = JSON.parse(await run('nbdinfo', '--json', '--map', uri('disk')))
  const expected = await Array.fromAsync(source.extents(0, SIZE))
  assert.deepEqual(
    map.map(({ offset, length, type }) => [offset, length, type]),
    expected.map(({ offset, length, kind }) => [offset, length, kind === 'data' ? 0 : 3]),
  )
})

test('nbdcopy brings an image out and onto a writable export, byte for byte', { skip: lacking('nbdcopy') }, async (t) => {
  const path = await scratch(t)
  const source = image()
  const disk = memoryDisk(SIZE)
  const { uri, server, open } = await nbdService(t, { image: { source }, disk })
  await run('nbdcopy', uri('image'), path('out.raw'))
  await run('nbdcopy', '--connections=4', '--flush', path('out.raw'), uri('disk'))
  assert.equal(await digestOf(disk.source), await digestOf(source))
  assert.ok(disk.flushes() > 0)
  await run('nbdcopy', '--request-size=33554432', uri('disk'), path('again.raw'))
  assert.ok((await readFile(path('again.raw'))).equals(await readFile(path('out.raw'))))
  await run('nbdcopy', '--synchronous', uri('image'), uri('disk'))
  assert.equal(await digestOf(disk.source), await digestOf(source))
  while (open() > 0) await new Promise(setImmediate)
  assert.equal(server.sharedBytesUsed, 0)
})

test('an image in a store is read by nbdcopy, byte for byte', { skip: lacking('nbdcopy') }, async (t) => {
  const path = await scratch(t)
  const index = await SqliteChunkIndex.open(':memory:')
  const store = await openChunkStore({ blobs: new MemoryBlobStore(), index })
  t.after(() => store.close())
  const { manifest } = await store.ingestDisk(image(), { owner: 'a project' })
  const { uri } = await nbdService(t, { disk: { source: await store.open(manifest) } })
  await run('nbdcopy', uri('disk'), path('out.raw'))
  await writeSource(image(), path('expected.raw'))
  assert.ok((await readFile(path('out.raw'))).equals(await readFile(path('expected.raw'))))
})

test('qemu-img converts, maps, compares and measures over NBD', { skip: lacking('qemu-img') }, async (t) => {
  const path = await scratch(t)
  const source = image()
  const disk = memoryDisk(SIZE)
  const { uri } = await nbdService(t, { image: { source }, disk })
  await writeSource(source, path('expected.raw'))
  assert.equal(JSON.parse(await run('qemu-img', 'info', '--output=json', uri('image')))['virtual-size'], SIZE)
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uri('image'), path('out.qcow2'))
  await run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path('out.qcow2'), path('expected.raw'))
  await run('qemu-img', 'convert', '-n', '-m', '16', '-W', '-f', 'qcow2', '-O', 'raw', path('out.qcow2'), uri('disk'))
  await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri('disk'), path('expected.raw'))
  assert.equal(await digestOf(disk.source), await digestOf(source))
  const map: { start: number; length: number; data: boolean }[] = JSON.parse(
    await run('qemu-img', 'map', '-f', 'raw', '--output=json', uri('image')),
  )
  assert.deepEqual(
    map.filter(({ data }) => data).map(({ start, length }) => [start, length]),
    (await Array.fromAsync(source.extents(0, SIZE)))
      .filter(({ kind }) => kind === 'data')
      .map(({ offset, length }) => [offset, length]),
  )
  for (const how of [
    ['-d', '1'],
    ['-d', '64'],
    ['-d', '16', '-w'],
    ['-d', '8', '-s', '1048576'],
  ]) {
    assert.match(await run('qemu-img', 'bench', '-f', 'raw', '-c', '500', ...how, uri('disk')), /Run completed/)
  }
})

test('qemu-io writes, zeroes, discards and flushes', { skip: lacking('qemu-io') }, async (t) => {
  const disk = memoryDisk(SIZE)
  const { uri, server } = await nbdService(t, { disk })
  const commands = [
    'write -P 7 1M 3M',
    'write -f -P 9 5 700',
    'write -z 2M 512k',
    'write -zu 3M 64k',
    'write -zun 3200k 64k',
    'discard 3M 128k',
    'flush',
  ]
  const reads = ['read -P 7 1M 1M', 'read -P 9 5 700', 'read -P 0 2M 512k', 'read -P 0 3M 64k', 'read -P 0 3200k 64k']
  const output = await run('qemu-io', '-f', 'raw', ...[...commands, ...reads].flatMap((command) => ['-c', command]), uri('disk'))
  assert.doesNotMatch(output, /failed|error/i)
  for (const name of ['WRITE', 'WRITE_ZEROES', 'TRIM', 'FLUSH', 'READ'] as const)
    assert.ok(server.counters.requests[name] > 0, name)
  assert.equal(server.counters.requestErrors, 0)
})

test('fio reads back what it wrote at random, 16 requests at once', { skip: lacking('fio') }, async (t) => {
  const path = await scratch(t)
  const { uri, server } = await nbdService(t, { disk: memoryDisk(16 * MiB) })
  const job = [
    '--name=verified',
    '--ioengine=nbd',
    `--uri=${uri('disk')}`,
    '--rw=randrw',
    '--bsrange=512-128k',
    '--blockalign=512',
    '--iodepth=16',
  ]
  await run('fio', ...job, '--size=16m', '--verify=crc32c', '--verify_fatal=1', `--aux-path=${path('')}`, '--minimal')
  assert.equal(server.counters.requestErrors, 0)
})

/** Starts a program that serves on `socket`, and ends it with the test. */
async function peer(t: TestContext, socket: string, tool: string, ...args: string[]): Promise<void> {
  const child = spawn(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (text) => {
    said += text
  })
  const ended = once(child, 'exit')
  t.after(() => {
    child.kill()
    return ended
  })
  while (!existsSync(socket)) {
    if (child.exitCode !== null) throw new Error(`${tool} ended: ${said}`)
    await new Promise((done) => setTimeout(done, 20))
  }
}

for (const [tool, args] of [
  ['nbdkit', (uri: string, socket: string) => ['-f', '-U', socket, 'nbd', `uri=${uri}`]],
  ['qemu-nbd', (uri: string, socket: string) => ['-f', 'raw', '-t', '-r', '-k', socket, uri]],
] as const) {
  test(`${tool} serves on what it reads from us`, { skip: lacking(tool, 'nbdcopy') }, async (t) => {
    const path = await scratch(t)
    const source = image()
    const { uri } = await nbdService(t, { image: { source } })
    await peer(t, path('peer.sock'), tool, ...args(uri('image'), path('peer.sock')))
    await run('nbdcopy', `nbd+unix:///?socket=${path('peer.sock')}`, path('out.raw'))
    await writeSource(source, path('expected.raw'))
    assert.ok((await readFile(path('out.raw'))).equals(await readFile(path('expected.raw'))))
  })
}

async function secureService(t: TestContext, how: 'certificates' | 'keys' | 'both', mode: NbdTls['mode']) {
  const path = await scratch(t)
  const made = how === 'keys' ? null : await certificates(path('certificates'))
  const keys = how === 'certificates' ? null : await preSharedKeys(path('keys'), ['alice', 'mallory'])
  const tls: NbdTls = {
    mode,
    ...(made ? { certificate: { cert: made.cert, key: made.key, clientAuthority: made.ca } } : {}),
    ...(keys ? { pskOf: (user: string) => (user === 'alice' ? keys.get(user) : undefined) } : {}),
  }
  const disk = memoryDisk(SIZE)
  const secret = { source: disk.source, writer: disk.writer, onlyFor: how === 'certificates' ? 'client' : 'alice' }
  const service = await nbdService(t, { secret, open: { source: image() } }, { tls })
  const address = await service.server.listen({ host: '127.0.0.1', port: 0 })
  const port = 'port' in address ? address.port : 0
  return {
    ...service,
    disk,
    port,
    keysFile: path('keys/keys.psk'),
    keysFolder: path('keys'),
    clientFolder: made?.clientFolder ?? '',
    byCertificate: (name: string, folder = made!.clientFolder) => `nbds://localhost:${port}/${name}?tls-certificates=${folder}`,
    byKey: (name: string, user = 'alice') =>
      `nbds+unix://${user}@/${name}?socket=${service.path}&tls-psk-file=${path('keys/keys.psk')}`,
    strangerFolder: made?.strangerFolder ?? '',
    file: path('image.raw'),
  }
}

/** Whether the export "secret" and the file are the same disk to qemu-img. @param credentials its object, without an id */
const compareOverTls = (credentials: string, port: number, file: string) => {
  const secret = `driver=nbd,host=localhost,port=${port},export=secret,tls-creds=tls`
  const raw = `driver=raw,file.driver=file,file.filename=${file}`
  return run('qemu-img', 'compare', '--object', `${credentials},id=tls`, '--image-opts', secret, raw)
}

test('with certificates: a client that shows one gets in by its name, others get nothing', {
  skip: lacking('nbdcopy', 'qemu-img', 'openssl'),
}, async (t) => {
  const { byCertificate, clientFolder, strangerFolder, port, disk, file, uri } = await secureService(
    t,
    'certificates',
    'required',
  )
  await writeSource(image(), file)
  await run('nbdcopy', file, byCertificate('secret'))
  assert.equal(await digestOf(disk.source), await digestOf(image()))
  await compareOverTls(`tls-creds-x509,dir=${clientFolder},endpoint=client`, port, file)
  await assert.rejects(run('nbdinfo', byCertificate('secret', strangerFolder)))
  await assert.rejects(run('nbdinfo', uri('open')), 'without TLS')
})

test('with pre-shared keys: a user with the right key gets in, others get nothing', {
  skip: lacking('nbdcopy', 'qemu-img', 'psktool'),
}, async (t) => {
  const { byKey, keysFolder, port, disk, file, uri } = await secureService(t, 'keys', 'required')
  await writeSource(image(), file)
  await run('nbdcopy', file, byKey('secret'))
  assert.equal(await digestOf(disk.source), await digestOf(image()))
  await compareOverTls(`tls-creds-psk,dir=${keysFolder},username=alice,endpoint=client`, port, file)
  await assert.rejects(run('nbdinfo', byKey('secret', 'mallory')), 'a user that the server does not know')
  await assert.rejects(run('nbdinfo', uri('open')), 'without TLS')
})

test('with both kinds offered, each client takes its own, or none where the export is for all', {
  skip: lacking('nbdinfo', 'openssl', 'psktool'),
}, async (t) => {
  const { byKey, byCertificate, uri } = await secureService(t, 'both', 'offered')
  assert.match(await run('nbdinfo', byKey('secret')), /with TLS/)
  assert.match(await run('nbdinfo', byCertificate('open')), /with TLS/)
  assert.match(await run('nbdinfo', uri('open')), /without TLS/)
  await assert.rejects(run('nbdinfo', byCertificate('secret')), 'the export of another')
  await assert.rejects(run('nbdinfo', uri('secret')), 'the export of another')
})
