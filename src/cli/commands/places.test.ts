/** Where disks come from: standard input, and addresses on the web, kind and unkind. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname } from 'node:path'
import { type TestContext, test } from 'node:test'
import { randomDisk, writeSource } from '../../../test/fixtures/disk/disks.ts'
import { lacking, run as runTool, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { ended, imprint, main, started } from '../disk-file/child.suite.ts'

const skip = lacking('qemu-img')
const DISK_BYTES = 24 * MiB

interface Site {
  readonly url: string
  /** `Range` headers as they came. */
  readonly ranges: string[]
}
type Answer = (request: IncomingMessage, response: ServerResponse) => void

async function site(t: TestContext, answer: Answer): Promise<Site> {
  const ranges: string[] = []
  const server = createServer((request, response) => {
    ranges.push(request.headers.range ?? '')
    answer(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk`, ranges }
}

/** A server that knows ranges. @param etag asked for each answer */
const ranged =
  (bytes: Uint8Array, etag: () => string = () => '"1"'): Answer =>
  (request, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!.map(Number) as [number, number, number]
    const end = Math.min(to + 1, bytes.length)
    response.writeHead(206, {
      'content-range': `bytes ${from}-${end - 1}/${bytes.length}`,
      'content-length': end - from,
      etag: etag(),
    })
    response.end(bytes.subarray(from, end))
  }

async function someQcow2(path: (name: string) => string): Promise<Buffer> {
  await writeSource(randomDisk(DISK_BYTES, 9, 8), path('disk.raw'))
  await runTool('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', path('disk.raw'), path('disk.qcow2'))
  return readFile(path('disk.qcow2'))
}

test('a disk on the web is read by ranges: to look at it costs little of it', { skip }, async (t) => {
  const path = await scratch(t)
  const qcow2 = await someQcow2(path)
  const { url, ranges } = await site(t, ranged(Buffer.concat([qcow2, Buffer.alloc(64 * MiB)])))
  const said = await imprint(['inspect', url, '--json'])
  assert.equal(said.code, 0, said.stderr)
  assert.equal(JSON.parse(said.stdout).disk.virtualBytes, DISK_BYTES)
  assert.ok(ranges.length < 8, `${ranges.length} requests`)
  const made = await imprint(['convert', url, path('made.raw')])
  assert.equal(made.code, 0, made.stderr)
  assert.ok((await readFile(path('made.raw'))).equals(await readFile(path('disk.raw'))))
  const equal = await imprint(['compare', url, path('disk.raw')])
  assert.equal(equal.code, 0, equal.stderr)
})

test('a server that breaks off is asked again; one that knows no ranges is fetched whole, up to a limit', { skip }, async (t) => {
  const path = await scratch(t)
  const qcow2 = await someQcow2(path)
  let asked = 0
  const flaky = await site(t, (request, response) => {
    asked += 1
    if (asked % 3 === 2) response.destroy()
    else ranged(qcow2)(request, response)
  })
  const made = await imprint(['convert', flaky.url, path('made.raw')])
  assert.equal(made.code, 0, made.stderr)
  assert.ok((await readFile(path('made.raw'))).equals(await readFile(path('disk.raw'))))
  const plain = await site(t, (_, response) => response.end(qcow2))
  const whole = await imprint(['convert', plain.url, path('whole.raw')])
  assert.equal(whole.code, 0, whole.stderr)
  assert.equal(plain.ranges.length, 1)
  assert.ok((await readFile(path('whole.raw'))).equals(await readFile(path('disk.raw'))))
  const over = await imprint(['convert', plain.url, path('over.raw'), '--spool-bytes', '1M'])
  assert.equal(over.code, 6)
  assert.match(over.stderr, /more than 1\.0 MiB.*--spool-bytes/)
})

const unkind: readonly [string, (bytes: Uint8Array) => Answer, number, RegExp][] = [
  ['no such file', () => (_, response) => response.writeHead(404).end(), 3, /no such file/],
  ['no leave', () => (_, response) => response.writeHead(403).end(), 4, /does not allow/],
  [
    'another range',
    (bytes) => (_, response) => {
      response.writeHead(206, { 'content-range': `bytes 7-8/${bytes.length}` }).end(bytes.subarray(0, 2))
    },
    1,
    /another range/,
  ],
  ['an encoding', () => (_, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('x'), 1, /encoded/],
  [
    'a file that changes',
    (bytes) => {
      let version = 0
      return ranged(bytes, () => `"${++version}"`)
    },
    5,
    /changed while it was read/,
  ],
]
for (const [what, answer, code, says] of unkind) {
  test(`of an address with ${what} nothing comes`, { skip }, async (t) => {
    const path = await scratch(t)
    const { url } = await site(t, answer(await someQcow2(path)))
    const said = await imprint(['convert', url.replace('//', '//user:secret@'), path('x.raw')])
    assert.equal(said.code, code, said.stderr)
    assert.match(said.stderr, says)
    assert.doesNotMatch(said.stderr, /secret/)
    assert.deepEqual((await readdir(dirname(path('x')))).sort(), ['disk.qcow2', 'disk.raw'])
  })
}

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 130],
  ['SIGKILL', 'SIGKILL'],
] as const) {
  test(`nothing is left of a conversion that ${signal} ends while it waits`, async (t) => {
    const path = await scratch(t)
    const bytes = randomBytes(6 * MiB)
    const { url } = await site(t, (request, response) => {
      if (request.headers.range !== `bytes=${2 * MiB}-${3 * MiB - 1}`) ranged(bytes)(request, response)
    })
    const child = await started(['convert', url, path('out.raw'), '--json'], /"phase":"Converting"/)
    assert.equal(await ended(child, signal), status)
    assert.deepEqual(await readdir(dirname(path('x'))), [])
  })
}

test('a disk comes from a pipe, and from a file on standard input, and goes to a pipe', { skip }, async (t) => {
  const path = await scratch(t)
  const qcow2 = await someQcow2(path)
  const piped = await imprint(['convert', '-', path('piped.raw')], { input: qcow2 })
  assert.equal(piped.code, 0, piped.stderr)
  const through = `"$0" "$1" convert - - --to vhd:fixed < '${path('disk.qcow2')}' | "$0" "$1" convert - '${path('through.raw')}'`
  await runTool('sh', '-c', through, process.execPath, main)
  const digest = async (name: string) =>
    createHash('sha256')
      .update((await readFile(path(name))).subarray(0, DISK_BYTES))
      .digest('hex')
  assert.equal(await digest('piped.raw'), await digest('disk.raw'))
  assert.equal(await digest('through.raw'), await digest('disk.raw'))
  assert.deepEqual((await readdir(dirname(path('x')))).sort(), ['disk.qcow2', 'disk.raw', 'piped.raw', 'through.raw'])
})

test('of standard input so much is kept as was said, and it is read once', async (t) => {
  const path = await scratch(t)
  const over = await imprint(['convert', '-', path('x.raw'), '--spool-bytes', '1M'], { input: randomBytes(2 * MiB) })
  assert.equal(over.code, 6)
  assert.match(over.stderr, /standard input has more than 1\.0 MiB/)
  const twice = await imprint(['compare', '-', '-'], { input: randomBytes(4096) })
  assert.equal(twice.code, 2)
  assert.match(twice.stderr, /read once/)
  const none = await imprint(['convert', '-', path('x.raw')], { input: '' })
  assert.equal(none.code, 1)
  assert.match(none.stderr, /empty/)
  await writeFile(path('empty'), '')
  assert.equal((await imprint(['inspect', path('empty')])).code, 1)
  assert.deepEqual(await readdir(dirname(path('x'))), ['empty'])
})
