/** Bytes that no client should send. fast-check prints the seed and the smallest input that fails. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { memoryDisk } from '../../../test/fixtures/nbd/memory-disk.ts'
import { contextData, goData, NbdClient, optionBytes, requestBytes } from '../../../test/fixtures/nbd/nbd-client.ts'
import { nbdService } from '../../../test/fixtures/nbd/nbd-service.ts'
import { KiB, MiB } from '../../base/units.ts'
import { parseContextRequest, parseExportRequest } from './option-data.ts'
import { COMMAND } from './protocol.ts'

const junk = fc.uint8Array({ maxLength: 200 }).map(Buffer.from)
const knownData = fc.constantFrom(
  goData('disk', [3]),
  contextData('disk', ['base:allocation']),
  Buffer.from('disk'),
  Buffer.alloc(0),
)
/** Known bytes with a few of them changed, cut off or prolonged. */
const mutated = (known: fc.Arbitrary<Buffer>) =>
  fc
    .tuple(known, fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 3 }), fc.nat(400), junk)
    .map(([bytes, changes, keep, more]) => {
      const copy = Buffer.from(bytes)
      for (const [at, value] of changes) if (at < copy.length) copy[at] = value
      return Buffer.concat([copy.subarray(0, keep), more])
    })
const code = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.nat())
const option = fc.oneof(
  fc.tuple(code, fc.oneof(knownData, mutated(knownData))).map(([kind, data]) => optionBytes(kind, data)),
  fc
    .tuple(code, fc.oneof(knownData, junk), fc.oneof(fc.nat(500), fc.nat()))
    .map(([kind, data, bytes]) => optionBytes(kind, data, bytes)),
  junk,
)
const request = fc
  .record({
    command: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.nat(65_535)),
    flags: fc.oneof(fc.integer({ min: 0, max: 31 }), fc.nat(65_535)),
    offset: fc.oneof(fc.nat(MiB).map(BigInt), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    length: fc.oneof(fc.nat(8 * KiB), fc.nat(2 * MiB), fc.integer({ min: 0, max: 2 ** 32 - 1 })),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    data: fc.oneof(junk, fc.constant(Buffer.alloc(8 * KiB, 1))),
  })
  .map(({ command, data, ...fields }) => Buffer.concat([requestBytes(command, fields), data]))

test('option data is parsed or called malformed, and never throws', () => {
  fc.assert(
    fc.property(fc.oneof(mutated(knownData), junk), (data) => {
      for (const parse of [parseExportRequest, parseContextRequest]) assert.equal(typeof parse(data), 'object')
    }),
    { numRuns: 2000 },
  )
})

/** Sends the bytes, in pieces, and goes. Whatever they were, the server gives everything back and serves the next client. */
async function survives(
  t: TestContext,
  bytes: (parts: readonly Buffer[]) => Buffer,
  parts: fc.Arbitrary<Buffer>,
  runs: number,
): Promise<void> {
  const service = await nbdService(t, { disk: memoryDisk(MiB) }, { limits: { handshakeMs: 500 } })
  const { path, open, server, logged } = service
  await fc.assert(
    fc.asyncProperty(fc.array(parts, { maxLength: 8 }), fc.nat(300), async (sent, cut) => {
      const client = await NbdClient.connect(path)
      client.socket.resume()
      const all = bytes(sent)
      client.socket.write(all.subarray(0, cut))
      client.socket.end(all.subarray(cut))
      // who is cut off while it still sends is told so by a reset
      await client.closed().catch((error: NodeJS.ErrnoException) => assert.match(error.code ?? '', /^(ECONNRESET|EPIPE)$/))
      while (open() > 0 || server.counters.handshaking > 0) await new Promise(setImmediate)
      assert.deepEqual([server.sharedBytesUsed, server.counters.connections], [0, 0])
      assert.deepEqual(
        logged.filter(({ level }) => level === 'error'),
        [],
      )
    }),
    { numRuns: runs },
  )
  const honest = await NbdClient.open(path, 'disk', { structured: true })
  assert.equal((await honest.request(COMMAND.READ, { length: 1000 })).errno, 0)
}

test('no handshake brings the server down or leaves anything behind', (t) =>
  survives(t, (parts) => Buffer.concat([Buffer.of(0, 0, 0, 3), ...parts]), option, 400))

for (const isStructured of [true, false]) {
  const hello: Buffer[] = [Buffer.of(0, 0, 0, 3)]
  if (isStructured) hello.push(optionBytes(8, Buffer.alloc(0)), optionBytes(10, contextData('disk', ['base:allocation'])))
  hello.push(optionBytes(7, goData('disk', [])))
  test(`no sequence of requests does, ${isStructured ? 'structured' : 'simple'} replies`, (t) =>
    survives(
      t,
      (parts) => Buffer.concat([...hello, ...parts]),
      fc.oneof({ weight: 9, arbitrary: request }, { weight: 1, arbitrary: junk }),
      300,
    ))
}
