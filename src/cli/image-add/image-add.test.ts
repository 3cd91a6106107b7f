import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { lacking } from '../../../test/fixtures/disk/tools.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'

const CHUNK = 64 * KiB
const folder = mkdtempSync(join(tmpdir(), 'imprint-add-'))
let service: RealService
let admin: Environment
let download: Awaited<ReturnType<typeof startDownloads>>

before(async () => {
  download = await startDownloads()
  service = await startService({ importPorts: [download.port] })
  admin = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
})
after(async () => {
  await service.images.jobs.idle()
  await service.close()
  download.server.close()
})

/** A web server that offers what it is given. */
async function startDownloads() {
  const files = new Map<string, Uint8Array>()
  const server = createServer((request, response) => {
    const file = files.get(request.url ?? '')
    if (file) response.writeHead(200, { 'content-length': file.length }).end(file)
    else response.writeHead(404).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { server, files, port: (server.address() as AddressInfo).port }
}

let made = 0
/** @param parts bytes at offsets; between them are holes */
function sparseFile(sizeBytes: number, parts: readonly (readonly [offset: number, bytes: Uint8Array])[]): string {
  made += 1
  const path = join(folder, `disk-${made}.raw`)
  const file = openSync(path, 'w')
  ftruncateSync(file, sizeBytes)
  for (const [offset, bytes] of parts) writeSync(file, bytes, 0, bytes.length, offset)
  closeSync(file)
  return path
}
const digestOf = (path: string): string => createHash('sha512').update(readFileSync(path)).digest('hex')

/** What the service gives back for an image. */
async function download512(id: string): Promise<string> {
  const to = join(folder, `${id}.back`)
  const got = await run(['image', 'get', id, to], { environment: admin })
  assert.equal(got.status, 0, got.err)
  return digestOf(to)
}

test('a sparse disk goes in by its data alone and comes out in the same bytes; sums follow behind', async () => {
  const path = sparseFile(32 * MiB + 1000, [
    [0, randomBytes(CHUNK)],
    [5 * MiB + 17, randomBytes(300_000)],
    [20 * MiB, new Uint8Array(2 * MiB)],
    [32 * MiB, randomBytes(1000)],
  ])
  const added = await run(
    ['image', 'add', path, '--name', 'sparse', '--tag', 'x', '--property', 'os_distro=debian', '--protected', '--json'],
    { environment: admin },
  )
  assert.equal(added.status, 0, added.err)
  const { image, transfer } = added.json
  assert.deepEqual(
    [image.status, image.sizeBytes, image.virtualBytes, image.protected, image.tags],
    ['active', 32 * MiB + 1000, 32 * MiB + 1000, true, ['x']],
  )
  assert.equal(image.properties.os_distro, 'debian')
  assert.ok(transfer.movedBytes < MiB, `moved ${transfer.movedBytes}`)
  await service.images.jobs.idle()
  assert.equal(await download512(image.id), digestOf(path))
  const shown = await run(['image', 'show', 'sparse', '--json'], { environment: admin })
  assert.equal(shown.json.hashValue, digestOf(path))
  assert.equal(shown.json.sizes.allocatedBytes, 6 * CHUNK + 1000)
})

test('of what is packed, and of an OVA, the disk goes in, with what the OVA says of its machine', async () => {
  const path = sparseFile(4 * MiB, [[MiB, randomBytes(100_000)]])
  writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)))
  const environment = admin
  assert.equal((await run(['convert', path, `${path}.ova`], { environment })).status, 0)
  for (const [file, layers, minRam] of [
    [`${path}.gz`, ['gzip'], 0],
    [`${path}.ova`, ['ova'], 1024],
  ] as const) {
    const added = await run(['image', 'add', file, '--json'], { environment })
    assert.equal(added.status, 0, added.err)
    const { image, transfer } = added.json
    const kinds = transfer.layers.map(({ kind }: { readonly kind: string }) => kind)
    assert.deepEqual([kinds, image.minRamMb, image.diskFormat], [layers, minRam, 'raw'])
    assert.equal(await download512(image.id), digestOf(path))
  }
  const other = ['--min-ram', '2', '--property', 'hw_disk_bus=virtio', '--name', 'other']
  const { image } = (await run(['image', 'add', `${path}.ova`, '--json', ...other], { environment })).json
  assert.deepEqual([image.minRamMb, image.properties.hw_disk_bus], [2, 'virtio'])
})

test('the next version of an image moves at most 6 % of its bytes, and the same again hardly any', async () => {
  const first = randomBytes(24 * MiB)
  const second = Buffer.from(first)
  for (let at = 1; at < 13; at += 1) randomBytes(5000).copy(second, at * 2_000_000) // 12 places, 3 % of the chunks
  const moved = async (bytes: Uint8Array) => {
    const added = await run(['image', 'add', sparseFile(bytes.length, [[0, bytes]]), '--json'], { environment: admin })
    assert.equal(added.status, 0, added.err)
    return added.json.transfer.movedBytes as number
  }
  assert.ok((await moved(first)) >= first.length)
  assert.ok((await moved(second)) <= 0.06 * second.length)
  assert.ok((await moved(second)) <= 0.001 * second.length)
})

for (const [format, ...how] of [
  ['qcow2', '-c', '-O', 'qcow2'],
  ['vmdk', '-O', 'vmdk', '-o', 'subformat=streamOptimized'],
  ['vhd', '-O', 'vpc', '-o', 'force_size=on'],
  ['vhdx', '-O', 'vhdx'],
  ['vdi', '-O', 'vdi'],
] as const) {
  test(`of a ${format} the disk is kept, as raw`, { skip: lacking('qemu-img') }, async () => {
    const raw = sparseFile(8 * MiB, [[MiB, randomBytes(2 * MiB)]])
    const file = join(folder, `disk.${format}`)
    execFileSync('qemu-img', ['convert', ...how, raw, file])
    const added = await run(['image', 'add', file, '--json'], { environment: admin })
    assert.equal(added.status, 0, added.err)
    assert.deepEqual(
      [added.json.image.name, added.json.image.diskFormat, added.json.transfer.sourceFormat],
      ['disk', 'raw', format],
    )
    assert.equal(await download512(added.json.image.id), digestOf(raw))
    const asFile = await run(['image', 'add', file, '--as-file', '--json'], { environment: admin })
    assert.deepEqual([asFile.json.image.diskFormat, asFile.json.image.virtualBytes], [format, 8 * MiB])
    assert.equal(await download512(asFile.json.image.id), digestOf(file))
  })
}

test('a file that refers to another, or is packed, or is empty, is refused before anything is sent', async () => {
  const hostile = Buffer.alloc(64 * KiB)
  hostile.set(Buffer.from('QFI\xfb', 'latin1'))
  hostile.writeUInt32BE(3, 4)
  const gzip = Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]), Buffer.alloc(1000)])
  for (const bytes of [hostile, gzip, Buffer.alloc(0)]) {
    const path = join(folder, 'hostile')
    writeFileSync(path, bytes)
    const added = await run(['image', 'add', path], { environment: admin })
    assert.equal(added.status, 1, added.err)
  }
  assert.equal((await run(['image', 'list', '--name', 'hostile', '--json'], { environment: admin })).json.length, 0)
})

test("the publisher's checksum is held against the file; another file leaves nothing behind", async () => {
  const path = sparseFile(MiB, [[0, randomBytes(MiB)]])
  const wrong = await run(['image', 'add', path, '--name', 'forged', '--os-hash', `sha256:${'0'.repeat(64)}`], {
    environment: admin,
  })
  assert.equal(wrong.status, 1)
  assert.match(wrong.err, /the publisher says 0000/)
  assert.equal((await run(['image', 'list', '--name', 'forged', '--json'], { environment: admin })).json.length, 0)
  const right = await run(['image', 'add', path, '--name', 'real', '--os-hash', `sha512:${digestOf(path)}`], {
    environment: admin,
  })
  assert.equal(right.status, 0, right.err)
})

test('a file that changes while it is read is not added', async () => {
  const path = sparseFile(12 * MiB, [[0, randomBytes(12 * MiB)]])
  const onErr = () => utimesSync(path, new Date(), new Date(1_000_000_000_000))
  const added = await run(['image', 'add', path, '--name', 'changing', '--json'], { environment: admin, onErr })
  assert.equal(added.status, 5, added.err)
  assert.match(added.err, /changed while it was read/)
  assert.equal((await run(['image', 'list', '--name', 'changing', '--json'], { environment: admin })).json.length, 0)
})

test('Ctrl-C says how to go on, and the same command goes on', async () => {
  const path = sparseFile(48 * MiB, [[0, randomBytes(48 * MiB)]])
  const stop = new AbortController()
  const onErr = (text: string) => {
    if (text.includes('progress')) stop.abort()
  }
  const stopped = await run(['image', 'add', path, '--name', 'later', '--json'], {
    environment: admin,
    signal: stop.signal,
    onErr,
  })
  assert.equal(stopped.status, 130)
  assert.match(stopped.err, /The same command goes on from here/)
  const resumed = await run(['image', 'add', path, '--name', 'other name', '--json'], { environment: admin })
  assert.equal(resumed.status, 0, resumed.err)
  const { movedBytes, resumedBytes } = resumed.json.transfer
  assert.ok(resumedBytes > 0 && movedBytes + resumedBytes < 49 * MiB, JSON.stringify(resumed.json.transfer))
  assert.equal(resumed.json.image.name, 'other name')
  assert.equal(await download512(resumed.json.image.id), digestOf(path))
})

test('killed in the middle by kill -9, the same command goes on where it was', async () => {
  const megabytes = 240 // enough to be in the middle when the report of 44 has come
  const path = sparseFile(megabytes * MiB, [[0, randomBytes(megabytes * MiB)]])
  const main = new URL('../../main.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [main, 'image', 'add', path, '--name', 'killed', '--json'], {
    env: admin as NodeJS.ProcessEnv,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let killedAt = 0
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.split('\n').filter((one) => one.includes('"progress"'))) {
      killedAt = JSON.parse(line).progress.doneBytes
      if (killedAt >= 44 * MiB) child.kill('SIGKILL')
    }
  })
  const [, signal] = await once(child, 'exit')
  assert.equal(signal, 'SIGKILL')
  const resumed = await run(['image', 'add', path, '--name', 'killed', '--json'], { environment: admin })
  assert.equal(resumed.status, 0, resumed.err)
  const { resumedBytes, movedBytes } = resumed.json.transfer
  // a pack that was not full yet is not durable: what it holds is sent again
  assert.ok(resumedBytes >= killedAt - 40 * MiB, `${resumedBytes} of ${killedAt} were kept`)
  assert.ok(movedBytes < (megabytes + 1) * MiB - resumedBytes)
  assert.equal(await download512(resumed.json.image.id), digestOf(path))
})

test('an address is fetched by the service itself', async () => {
  const bytes = Buffer.concat([randomBytes(MiB), Buffer.alloc(MiB)])
  download.files.set('/disks/web-disk.raw', bytes)
  const added = await run(['image', 'add', `http://127.0.0.1:${download.port}/disks/web-disk.raw`, '--json'], {
    environment: admin,
  })
  assert.equal(added.status, 0, added.err)
  assert.deepEqual(
    [added.json.image.name, added.json.image.status, added.json.image.sizeBytes],
    ['web-disk', 'active', bytes.length],
  )
  const absent = await run(['image', 'add', `http://127.0.0.1:${download.port}/absent.raw`], { environment: admin })
  assert.equal(absent.status, 1)
  assert.match(absent.err, /could not import/)
})

test('of a package and of an archive on the web the service takes the disk', async () => {
  const path = sparseFile(2 * MiB, [[MiB, randomBytes(100_000)]])
  const added = await run(['image', 'add', path, '--min-ram', '768', '--property', 'hw_vif_model=e1000', '--json'], {
    environment: admin,
  })
  await service.images.jobs.idle()
  for (const [name, format] of [
    ['box.ova', 'ova'],
    ['box.qcow2.gz', 'qcow2'],
  ] as const) {
    const got = await run(['image', 'get', added.json.image.id, join(folder, name), '--format', format], { environment: admin })
    assert.equal(got.status, 0, got.err)
    const file = readFileSync(join(folder, name))
    download.files.set(`/${name}`, format === 'ova' ? file : gzipSync(file))
    const { status, err, json } = await run(['image', 'add', `http://127.0.0.1:${download.port}/${name}`, '--json'], {
      environment: admin,
    })
    assert.equal(status, 0, err)
    const { image } = json
    assert.deepEqual([image.containerFormat, image.diskFormat, image.sizeBytes], ['bare', 'raw', 2 * MiB])
    const ofPackage = format === 'ova' ? [768, 'e1000'] : [0, undefined]
    assert.deepEqual([image.minRamMb, image.properties.hw_vif_model], ofPackage)
    assert.equal(await download512(image.id), digestOf(path))
  }
})

test('a terminal sees a bar with speed and time left', async () => {
  const path = sparseFile(8 * MiB, [[0, randomBytes(8 * MiB)]])
  const added = await run(['image', 'add', path], { environment: admin, isTerminal: true })
  assert.equal(added.status, 0, added.err)
  assert.match(added.err, /\r.*Sending {2}[█░]+ {2}.*%.*\/s.*sent/)
  assert.match(added.out, /of data, sent .* in /)
})

test('a missing file and a wrong option say so', async () => {
  assert.equal((await run(['image', 'add', join(folder, 'absent')], { environment: admin })).status, 3)
  assert.equal((await run(['image', 'add', folder], { environment: admin })).status, 1)
  assert.equal((await run(['image', 'add', join(folder, 'x'), '--os-hash', 'sha256:12'], { environment: admin })).status, 2)
  assert.equal((await run(['image', 'add', join(folder, 'x'), '--id', '12'], { environment: admin })).status, 2)
})
