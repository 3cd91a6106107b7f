import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { HttpClient } from '../../../cli/client/http-client.ts'
import { IdentityClient } from '../../../cli/client/identity-client.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../../../cli/real-service.suite.ts'
import { encodeBootRecord } from '../../../store/content/boot-record.ts'
import { decodeChunk } from '../../../store/content/codec.ts'
import { decodeFrames } from '../../../store/content/decode-chunks.ts'
import { digestAt, hexOf, isZeroAt, sha256, sha256Hex } from '../../../store/content/digests.ts'
import { parsePage, parseRoot } from '../../../store/content/manifest-format.ts'

const CHUNK = 65_536
/** More than a page of chunks: random ones, ones that compress, zeros, and a short last one. */
const CHUNKS = 1030
const file = Buffer.alloc((CHUNKS - 1) * CHUNK + 1000)
for (let chunk = 0; chunk < CHUNKS; chunk += 1) {
  const at = file.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)
  if (chunk % 7 === 0) at.set(randomBytes(at.length))
  else if (chunk % 3 !== 0) at.fill(`chunk ${chunk} `)
}

let service: RealService
let token = ''
let id = ''
before(async () => {
  service = await startService()
  const http = new HttpClient(service.url)
  const credential = { kind: 'password', user: 'admin', password: ADMIN_PASSWORD } as const
  token = (await new IdentityClient(http).authenticate(credential, 'admin')).token
  http.close()
  id = (await newExport(await newImage(file))).id
})
after(() => service.close())

const asked = (method: string, path: string, body?: Uint8Array<ArrayBuffer> | object, more: Record<string, string> = {}) => {
  const isBinary = body instanceof Uint8Array
  const type = body === undefined ? {} : { 'content-type': isBinary ? 'application/octet-stream' : 'application/json' }
  const sent = isBinary ? body : body === undefined ? undefined : JSON.stringify(body)
  return fetch(`${service.url}${path}`, {
    method,
    headers: { 'x-auth-token': token, ...type, ...more },
    ...(sent === undefined ? {} : { body: sent }),
  })
}
// biome-ignore lint/suspicious/noExplicitAny: a test looks into what a client would read
const json = async (answer: Response): Promise<any> => answer.json()
async function newImage(bytes: Buffer): Promise<string> {
  const made = await json(await asked('POST', '/image/v2/images', { disk_format: 'raw', container_format: 'bare' }))
  const sent = await asked('PUT', `/image/v2/images/${made.id}/file`, new Uint8Array(bytes))
  assert.equal(sent.status, 204, await sent.text())
  return made.id
}
const newExport = async (image: string, more: object = {}) => json(await asked('POST', '/v1/exports', { image, ...more }))
function body(numbers: readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.alloc(numbers.length * 4)
  for (const [index, number] of numbers.entries()) bytes.writeUInt32BE(number, index * 4)
  return new Uint8Array(bytes)
}
async function chunksOf(numbers: readonly number[], query = '') {
  const answer = await asked('POST', `/v1/exports/${id}/file/chunks${query}`, body(numbers))
  assert.equal(answer.status, 200)
  return Array.fromAsync(decodeFrames(answer.body!, CHUNK, 2 ** 30))
}
const bytesOf = async (path: string) => new Uint8Array(await (await asked('GET', path)).arrayBuffer())

test('the layout is the manifest itself, vouched for by its digests, and has the digest of every chunk', async () => {
  const { manifest, ...facts } = await json(await asked('GET', `/v1/exports/${id}/file`))
  assert.deepEqual(facts, { diskFormat: 'raw', fileBytes: file.length, chunkBytes: CHUNK })
  const rootBytes = await bytesOf(`/v1/exports/${id}/file/layout`)
  assert.equal(sha256Hex(rootBytes), manifest)
  const root = parseRoot(rootBytes, CHUNK)
  for (const page of [0, 1]) {
    const pageBytes = await bytesOf(`/v1/exports/${id}/file/layout/${page}`)
    assert.equal(sha256Hex(pageBytes), hexOf(digestAt(root.pages, page)))
    const entries = parsePage(pageBytes, page === 0 ? 1024 : CHUNKS - 1024)
    for (let entry = 0; entry < entries.length / 32; entry += 1) {
      const chunk = file.subarray((page * 1024 + entry) * CHUNK, (page * 1024 + entry + 1) * CHUNK)
      if (chunk.every((byte) => byte === 0)) assert.ok(isZeroAt(entries, entry))
      else assert.equal(hexOf(digestAt(entries, entry)), sha256Hex(chunk))
    }
  }
})

test('who has the layout is told so by its ETag', async () => {
  for (const path of [`/v1/exports/${id}/file/layout`, `/v1/exports/${id}/file/layout/0`]) {
    const etag = (await asked('GET', path)).headers.get('etag')!
    assert.match(etag, /^"[0-9a-f]{64}"$/)
    const again = await asked('GET', path, undefined, { 'if-none-match': etag })
    assert.deepEqual([again.status, (await again.arrayBuffer()).byteLength], [304, 0])
  }
})

test('chunks asked for by number come in that order, with the digests of the layout, and unpack to the bytes of the file', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(CHUNKS - 1), { minLength: 1, maxLength: 60 }),
      fc.constantFrom('', '?verified=true'),
      async (numbers, query) => {
        const data = numbers
          .map((number) => file.subarray(number * CHUNK, (number + 1) * CHUNK))
          .filter((one) => one.some(Boolean))
        const frames = await chunksOf(numbers, query)
        assert.equal(frames.length, data.length)
        for (const [index, { digest, codec, bytes }] of frames.entries()) {
          assert.equal(hexOf(digest), sha256Hex(data[index]!))
          const plain = decodeChunk(bytes, codec === 'zstd' ? 1 : 0, CHUNK)
          assert.ok(plain && data[index]!.equals(plain))
        }
      },
    ),
    { numRuns: 20 },
  ))

test('as many as one may ask for come, and more readers than there are read slots share the memory', async () => {
  const all = Array.from({ length: 1024 }, (_, number) => number)
  const data = all.filter((number) => number % 7 === 0 || number % 3 !== 0).length
  const answers = await Promise.all(Array.from({ length: 40 }, (_, at) => chunksOf(at < 4 ? all : all.slice(at, at + 64))))
  for (const answer of answers.slice(0, 4)) assert.equal(answer.length, data)
})

test('a reader that leaves ends it, and an export that is over gives nothing', async () => {
  const image = await newImage(Buffer.concat([randomBytes(CHUNK * 200)]))
  const { id: other } = await newExport(image)
  const numbers = Array.from({ length: 200 }, (_, number) => number)
  const gone = new AbortController()
  const answer = await fetch(`${service.url}/v1/exports/${other}/file/chunks`, {
    method: 'POST',
    headers: { 'x-auth-token': token, 'content-type': 'application/octet-stream' },
    body: body(numbers),
    signal: gone.signal,
  })
  await answer.body!.getReader().read()
  gone.abort()
  assert.equal((await asked('DELETE', `/v1/exports/${other}`)).status, 204)
  assert.equal((await asked('POST', `/v1/exports/${other}/file/chunks`, body([0]))).status, 404)
  assert.equal((await asked('GET', `/v1/exports/${other}/file`)).status, 404)
  assert.equal((await asked('GET', `/v1/exports/${other}/file/layout/0`)).status, 404)
})

const refused: readonly [string, string, string, Uint8Array<ArrayBuffer> | undefined, number, RegExp][] = [
  ['a chunk beyond the file', 'POST', '/chunks', body([0, CHUNKS]), 400, /no chunk 1030.*has 1030/],
  ['no chunk', 'POST', '/chunks', body([]), 400, /at least one/],
  ['half a number', 'POST', '/chunks', new Uint8Array(6), 400, /4 bytes each/],
  ['more than 1,024 chunks', 'POST', '/chunks', body(new Array(1025).fill(0)), 413, /4096/],
  ['a page beyond the file', 'GET', '/layout/2', undefined, 404, /no page 2/],
  ['a page that is no number', 'GET', '/layout/x', undefined, 400, /page/],
]
for (const [what, method, path, sent, status, says] of refused) {
  test(`${what} is refused`, async () => {
    const answer = await asked(method, `/v1/exports/${id}/file${path}`, sent)
    assert.equal(answer.status, status)
    assert.match((await json(answer)).message, says)
  })
}

test('a boot record is put once, given to all, and refused where it is none', async () => {
  const bytes = randomBytes(10 * CHUNK)
  const { id: other } = await newExport(await newImage(bytes))
  const path = `/v1/exports/${other}/file/boot-record`
  assert.equal((await asked('GET', path)).status, 404)
  const record = (chunks: readonly number[]) =>
    new Uint8Array(
      encodeBootRecord(
        chunks.map((chunk) => ({
          chunk,
          afterMs: 1,
          prefix: sha256(bytes.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)).subarray(0, 4),
        })),
      ),
    )
  assert.equal((await asked('PUT', path, record([3, 1, 10]))).status, 400)
  assert.equal((await asked('PUT', path, new Uint8Array(50_000))).status, 413)
  assert.equal((await asked('PUT', path, record([3, 1, 2, 9]))).status, 204)
  const got = await asked('GET', path)
  assert.equal(got.headers.get('imprint-boot-record'), 'own')
  assert.deepEqual(new Uint8Array(await got.arrayBuffer()), record([3, 1, 2, 9]))
})

test('the file of a writable export is not given: its disk is more than the file', async () => {
  const image = await newImage(randomBytes(1000))
  const { id: other, code } = await newExport(image, { writable: true })
  if (code !== undefined) return // the service has no place for what is written
  assert.equal((await asked('GET', `/v1/exports/${other}/file`)).status, 415)
})
