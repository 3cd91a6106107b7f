import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { memoryDisk } from '../../../test/fixtures/nbd/memory-disk.ts'
import { contextData, goData, NbdClient, optionBytes } from '../../../test/fixtures/nbd/nbd-client.ts'
import { nbdService } from '../../../test/fixtures/nbd/nbd-service.ts'
import { COMMAND, ERRNO, INFO, OFFERS, OPTION, OPTION_REPLY } from './protocol.ts'

const size = 1_000_000
const scratchDisk = () => memoryDisk(size)
const service = (t: TestContext) => {
  const disk = scratchDisk()
  return nbdService(t, {
    secret: { source: disk.source, description: 'a disk' },
    'with a writer': { ...scratchDisk(), isListed: true, description: 'for scratch' },
    'of 4 KiB': { ...memoryDisk(1_048_576), minimumBytes: 4096 },
  })
}
const greeted = async (path: string, flags?: number) => {
  const client = await NbdClient.connect(path)
  await client.greet(flags)
  return client
}
const typesOf = (replies: readonly { type: number }[]) => replies.map(({ type }) => type)
const { ACK, ERR_INVALID, ERR_POLICY, ERR_TOO_BIG, ERR_UNKNOWN, ERR_UNSUP } = OPTION_REPLY

for (const flags of [0, 1, 2, 3]) {
  test(`an old client with flags ${flags} chooses by EXPORT_NAME and reads`, async (t) => {
    const { path } = await service(t)
    const client = await greeted(path, flags)
    client.socket.write(optionBytes(OPTION.EXPORT_NAME, Buffer.from('secret')))
    const reply = await client.take(flags & 2 ? 10 : 134)
    assert.equal(reply.readBigUInt64BE(0), BigInt(size))
    assert.equal(reply.readUInt16BE(8), OFFERS.HAS_FLAGS | OFFERS.READ_ONLY | OFFERS.MULTI_CONN)
    assert.ok(reply.subarray(10).every((byte) => byte === 0))
    client.transmit()
    const { data } = await client.request(COMMAND.READ, { offset: size - 3, length: 3 })
    assert.deepEqual(data, Buffer.alloc(3))
  })
}

test('GO tells what was asked for and what the export offers', async (t) => {
  const { path } = await service(t)
  const client = await greeted(path)
  await client.structured()
  const replies = await client.option(OPTION.GO, goData('with a writer', [INFO.NAME, INFO.DESCRIPTION, INFO.BLOCK_SIZE, 77]))
  const infos = new Map(replies.slice(0, -1).map(({ data }) => [data.readUInt16BE(0), data.subarray(2)]))
  assert.equal(replies.at(-1)!.type, ACK)
  assert.equal(infos.get(INFO.NAME)!.toString(), 'with a writer')
  assert.equal(infos.get(INFO.DESCRIPTION)!.toString(), 'for scratch')
  assert.deepEqual(
    [0, 4, 8].map((at) => infos.get(INFO.BLOCK_SIZE)!.readUInt32BE(at)),
    [1, 65_536, 33_554_432],
  )
  const { HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, DF, MULTI_CONN, FAST_ZERO } = OFFERS
  const offers = HAS_FLAGS | FLUSH | FUA | TRIM | WRITE_ZEROES | DF | MULTI_CONN | FAST_ZERO
  assert.equal(infos.get(INFO.EXPORT)!.readUInt16BE(8), offers)
})

test('INFO opens nothing for good, and another option may follow', async (t) => {
  const { path, open } = await service(t)
  const client = await greeted(path)
  for (const name of ['secret', 'with a writer'])
    assert.equal((await client.option(OPTION.INFO, goData(name, []))).at(-1)!.type, ACK)
  assert.equal(open(), 0)
  await client.go('secret')
  assert.equal(client.size, size)
  assert.equal(open(), 1)
})

test('LIST shows what the source allows and no other name', async (t) => {
  const { path } = await service(t)
  const client = await greeted(path)
  const [listed, end] = await client.option(OPTION.LIST)
  assert.equal(listed!.data.toString('utf8', 4, 4 + listed!.data.readUInt32BE(0)), 'with a writer')
  assert.equal(listed!.data.toString('utf8', 4 + 13), 'for scratch')
  assert.equal(end!.type, ACK)
})

test('names that are not there, malformed options and unknown ones get their answers, and the connection goes on', async (t) => {
  const { path, open } = await service(t)
  const client = await greeted(path)
  await client.structured()
  const cut = goData('secret', [INFO.NAME])
  const cases: readonly [string, number, Buffer, number][] = [
    ['an unknown export', OPTION.GO, goData('secre', []), ERR_UNKNOWN],
    ['the empty name', OPTION.INFO, goData('', []), ERR_UNKNOWN],
    ['a name of 257 bytes', OPTION.GO, goData('x'.repeat(257), []), ERR_UNKNOWN],
    ['a name of 4096 bytes', OPTION.GO, goData('x'.repeat(4096), []), ERR_UNKNOWN],
    ['a name of 4097 bytes', OPTION.GO, goData('x'.repeat(4097), []), ERR_INVALID],
    ['a name with a NUL', OPTION.GO, goData('secret\0', []), ERR_INVALID],
    ['a name that is not UTF-8', OPTION.GO, goData(Buffer.of(0xff, 0xfe), []), ERR_INVALID],
    ['a name longer than its data', OPTION.GO, Buffer.from('000000ff6162', 'hex'), ERR_INVALID],
    ['no data', OPTION.GO, Buffer.alloc(0), ERR_INVALID],
    [
      '65535 information requests and none there',
      OPTION.GO,
      Buffer.concat([goData('secret', []).subarray(0, -2), Buffer.of(255, 255)]),
      ERR_INVALID,
    ],
    ['half an information request', OPTION.GO, cut.subarray(0, -1), ERR_INVALID],
    ['LIST with data', OPTION.LIST, Buffer.of(1), ERR_INVALID],
    ['STRUCTURED_REPLY with data', OPTION.STRUCTURED_REPLY, Buffer.of(1), ERR_INVALID],
    ['STARTTLS without TLS here', OPTION.STARTTLS, Buffer.alloc(0), ERR_POLICY],
    ['an unknown option', 4711, Buffer.from('whatever'), ERR_UNSUP],
    ['extended headers', 11, Buffer.alloc(0), ERR_UNSUP],
    ['65 queries', OPTION.SET_META_CONTEXT, contextData('secret', Array(65).fill('base:x')), ERR_INVALID],
    ['contexts of an unknown export', OPTION.SET_META_CONTEXT, contextData('other', ['base:allocation']), ERR_UNKNOWN],
    ['20 KiB of queries', OPTION.LIST_META_CONTEXT, contextData('secret', Array(5).fill('x'.repeat(4096))), ERR_TOO_BIG],
  ]
  for (const [what, code, data, expected] of cases) assert.deepEqual(typesOf(await client.option(code, data)), [expected], what)
  await client.go('secret')
  assert.equal(open(), 1)
})

test('contexts: listed by prefix, chosen by name, for one export, and only after structured replies', async (t) => {
  const { path } = await service(t)
  const client = await greeted(path)
  const { LIST_META_CONTEXT, SET_META_CONTEXT } = OPTION
  const { META_CONTEXT } = OPTION_REPLY
  assert.deepEqual(typesOf(await client.option(SET_META_CONTEXT, contextData('secret', ['base:allocation']))), [ERR_INVALID])
  await client.structured()
  for (const queries of [[], ['base:'], ['qemu:dirty-bitmap:', 'base:allocation']]) {
    const listed = await client.option(LIST_META_CONTEXT, contextData('secret', queries))
    assert.deepEqual(typesOf(listed), [META_CONTEXT, ACK])
    assert.equal(listed[0]!.data.toString('utf8', 4), 'base:allocation')
  }
  assert.deepEqual(typesOf(await client.option(LIST_META_CONTEXT, contextData('secret', ['qemu:']))), [ACK])
  assert.deepEqual(typesOf(await client.option(SET_META_CONTEXT, contextData('secret', ['base:']))), [ACK])
  const chosen = await client.option(SET_META_CONTEXT, contextData('with a writer', ['base:allocation', 'base:allocation']))
  assert.deepEqual(typesOf(chosen), [META_CONTEXT, ACK])
  await client.go('secret')
  assert.equal((await client.request(COMMAND.BLOCK_STATUS, { length: 10 })).errno, ERRNO.EINVAL, 'chosen for another export')
})

test('an export with larger blocks is only for clients that ask for them', async (t) => {
  const { path } = await service(t)
  const client = await greeted(path)
  assert.deepEqual(typesOf(await client.option(OPTION.GO, goData('of 4 KiB', []))), [OPTION_REPLY.ERR_BLOCK_SIZE_REQD])
  assert.equal((await client.option(OPTION.GO, goData('of 4 KiB', [INFO.BLOCK_SIZE]))).at(-1)!.type, ACK)
  client.transmit()
  assert.equal((await client.request(COMMAND.READ, { offset: 4096, length: 4096 })).errno, 0)
  assert.equal((await client.request(COMMAND.READ, { offset: 512, length: 4096 })).errno, ERRNO.EINVAL)
  assert.equal((await client.request(COMMAND.READ, { offset: 0, length: 4095 })).errno, ERRNO.EINVAL)
})

test('ABORT is acknowledged and the connection ends', async (t) => {
  const { path, server } = await service(t)
  const client = await greeted(path)
  assert.deepEqual(typesOf(await client.option(OPTION.ABORT)), [ACK])
  await client.closed()
  assert.equal(server.counters.handshakesFailed, 0)
})

const ended: readonly [string, number, Buffer][] = [
  ['flags that nobody knows', 7, Buffer.alloc(0)],
  ['an option other than EXPORT_NAME without fixed newstyle', 0, optionBytes(OPTION.LIST, Buffer.alloc(0))],
  ['an unknown EXPORT_NAME', 3, optionBytes(OPTION.EXPORT_NAME, Buffer.from('nobody'))],
  ['a wrong magic', 3, Buffer.alloc(16, 0x41)],
  ['4 GiB of option data announced', 3, optionBytes(OPTION.GO, Buffer.alloc(0), 0xffffffff)],
  ['an EXPORT_NAME of 20 KiB', 3, optionBytes(OPTION.EXPORT_NAME, Buffer.alloc(20_000, 0x61))],
  ['33 options', 3, Buffer.concat(Array(33).fill(optionBytes(OPTION.STRUCTURED_REPLY, Buffer.alloc(0))))],
  ['17 LISTs, each of which counts as two', 3, Buffer.concat(Array(17).fill(optionBytes(OPTION.LIST, Buffer.alloc(0))))],
]
for (const [what, flags, bytes] of ended) {
  test(`the connection ends at ${what}`, async (t) => {
    const { path, open, server } = await service(t)
    const client = await greeted(path, flags)
    client.socket.write(bytes)
    client.socket.resume()
    await client.closed()
    assert.equal(open(), 0)
    assert.equal(server.counters.handshaking, 0)
  })
}

test('an option and what follows may come in any pieces', async (t) => {
  const { path } = await service(t)
  const client = await NbdClient.connect(path)
  const bytes = Buffer.concat([
    Buffer.of(0, 0, 0, 3),
    optionBytes(OPTION.STRUCTURED_REPLY, Buffer.alloc(0)),
    optionBytes(OPTION.GO, goData('secret', [])),
  ])
  await client.take(18)
  client.socket.setNoDelay(true)
  for (const byte of bytes) await new Promise((done) => client.socket.write(Buffer.of(byte), done))
  assert.deepEqual(typesOf(await client.optionReplies()), [ACK])
  assert.deepEqual(typesOf(await client.optionReplies()), [OPTION_REPLY.INFO, ACK])
})
