import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../../base/errors.ts'
import { addressBytes, addressPolicy } from './address-policy.ts'
import { createDialer, type Dialer, type DialerSettings } from './dialer.ts'
import { type HostileServer, hostileServer, ok, reply, watchConnects } from './hostile-server.suite.ts'
import { parseImportUrl } from './import-url.ts'
import { blockedAddresses, urlForms } from './url-forms.suite.ts'

/** The only place that the dialers of these tests may reach; everything else of loopback stays closed. */
const OPEN = '127.0.0.77'
let victim: HostileServer
let open: HostileServer
let location = ''
before(async () => {
  victim = await hostileServer((socket) => reply(socket, ok(Buffer.from('secret')), 'secret'))
  open = await hostileServer((socket, head) => {
    if (head.startsWith('GET /redirect')) {
      socket.write(
        Buffer.from(`HTTP/1.1 302 Found\r\ncontent-length: 0\r\nset-cookie: a=b\r\nlocation: ${location}\r\n\r\n`, 'utf8'),
      )
      socket.end()
    } else reply(socket, ok(Buffer.from('open')), 'open')
  }, OPEN)
})
after(async () => {
  await victim.close()
  await open.close()
})

const quick = { connectMs: 2000, headersMs: 2000, stallMs: 60, stallBytes: 10 }
const dialer = (more: Partial<DialerSettings> = {}): Dialer =>
  createDialer({
    allowedHosts: [],
    allowedNetworks: [`${OPEN}/32`],
    allowedPorts: [80, 443, victim.port, open.port],
    resolve: async () => ['127.0.0.1'],
    limits: quick,
    ...more,
  })

/** Runs `work`, which must be refused, and holds every connection that it tried against the one that is allowed. */
async function assertReachesNothing(work: () => Promise<unknown>, what: string): Promise<void> {
  const watch = watchConnects()
  try {
    await assert.rejects(work, (error) => {
      assert.ok(isServiceError(error, 'invalid-request') || isServiceError(error, 'unavailable'), `${what}: ${String(error)}`)
      return true
    })
    for (const address of watch.addresses) assert.equal(address, OPEN, what)
  } finally {
    watch.stop()
  }
}

test('the watch sees a connection that is made, and the port of the victim is not what keeps us out', async () => {
  const watch = watchConnects()
  const body = (await dialer({ allowedNetworks: ['127.0.0.1/32'] }).get(`http://127.0.0.1:${victim.port}/`)).body
  assert.equal((await buffer(body)).toString(), 'secret')
  watch.stop()
  assert.deepEqual(watch.addresses, ['127.0.0.1'])
})

test('no form of URL leads directly to a blocked address', async () => {
  const seen = victim.connections()
  const forms = urlForms(victim.port)
  assert.ok(forms.length >= 120)
  for (const { url } of forms) await assertReachesNothing(() => dialer().get(url), url)
  assert.equal(victim.connections(), seen)
})

for (const status of [301, 302, 303, 307, 308]) {
  test(`no form of URL leads to a blocked address by a redirect with ${status}`, async () => {
    const seen = victim.connections()
    const redirecting = await hostileServer(
      (socket) => reply(socket, `HTTP/1.1 ${status} R\r\ncontent-length: 0\r\nlocation: ${location}`),
      OPEN,
    )
    const from = dialer({ allowedPorts: [80, victim.port, redirecting.port] })
    const forms = status === 302 ? urlForms(victim.port) : urlForms(victim.port).filter((_, index) => index % 10 === 0)
    for (const { url } of forms.filter((form) => form.url !== '' && !/[\r\n]/.test(form.url))) {
      location = url
      await assertReachesNothing(async () => {
        const response = await from.get(`http://${OPEN}:${redirecting.port}/`)
        await buffer(response.body)
      }, url)
    }
    await redirecting.close()
    assert.equal(victim.connections(), seen)
  })
}

test('no form of URL leads to a blocked address by a name that resolves to it, at once or after the check', async () => {
  const seen = victim.connections()
  for (const { address } of urlForms(victim.port)) {
    const url = `http://rebind.example:${victim.port}/`
    await assertReachesNothing(() => dialer({ resolve: async () => [address] }).get(url), address)
    // The first look-up gives the open server, which redirects to the same name; the second gives the victim.
    let looks = 0
    const rebinding = dialer({
      resolve: async () => {
        looks += 1
        return looks === 1 ? [OPEN] : [address]
      },
    })
    location = url
    await assertReachesNothing(() => rebinding.get(`http://rebind.example:${open.port}/redirect`), `rebound to ${address}`)
    assert.equal(looks, 2)
  }
  assert.equal(victim.connections(), seen)
})

test('of several answers only an allowed one is connected to, and each name is looked up once', async () => {
  for (const address of blockedAddresses) {
    let looks = 0
    const watch = watchConnects()
    const from = dialer({
      resolve: async () => {
        looks += 1
        return [address, OPEN, address]
      },
    })
    assert.equal((await buffer((await from.get(`http://two.example:${open.port}/`)).body)).toString(), 'open')
    watch.stop()
    assert.deepEqual([watch.addresses, looks], [[OPEN], 1], address)
  }
})

test('an allowed host may be on a private network, but never at a metadata address unless its network is allowed too', () => {
  const policy = addressPolicy([])
  assert.equal(policy.refusal('10.1.2.3', true), undefined)
  assert.equal(policy.refusal('127.0.0.1', true), undefined)
  for (const address of ['169.254.169.254', 'fe80::1', '168.63.129.16', 'fd00:ec2::254', '224.0.0.1', '::ffff:10.0.0.1']) {
    assert.notEqual(policy.refusal(address, true), undefined, address)
  }
  assert.equal(addressPolicy(['169.254.169.254']).refusal('169.254.169.254', false), undefined)
  assert.throws(() => addressPolicy(['10.0.0.0/33']), { code: 'invalid-request' })
  assert.throws(() => addressPolicy(['intranet']), { code: 'invalid-request' })
})

test('public addresses are let through', () => {
  const policy = addressPolicy([])
  for (const address of [
    '1.1.1.1',
    '8.8.8.8',
    '151.101.2.132',
    '172.32.0.1',
    '100.128.0.1',
    '2606:4700::1111',
    '2a04:4e42::644',
  ]) {
    assert.equal(policy.refusal(address, false), undefined, address)
  }
})

test('an address in any form has the bytes that the standard says', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(8), fc.nat(8), (bytes, from, count) => {
      bytes.fill(0, from * 2, Math.min(16, (from + count) * 2))
      const groups = Array.from({ length: 8 }, (_, at) => (((bytes[at * 2] ?? 0) << 8) | (bytes[at * 2 + 1] ?? 0)).toString(16))
      const written = new URL(`http://[${groups.join(':')}]/`).hostname.slice(1, -1)
      assert.deepEqual(addressBytes(written), bytes)
    }),
  )
})

test('a URL is read in one way or not at all', () => {
  const rules = { schemes: new Set(['http:', 'https:'] as const), ports: new Set([80, 443]) }
  fc.assert(
    fc.property(
      fc.oneof(
        fc.webUrl(),
        fc.string(),
        fc.webAuthority().map((authority) => `http://${authority}/`),
      ),
      (text) => {
        try {
          const { href, host } = parseImportUrl(text, rules)
          assert.equal(new URL(href).hostname.replace(/^\[|\]$/g, ''), host)
          assert.equal(parseImportUrl(href, rules).href, href)
        } catch (error) {
          assert.ok(isServiceError(error, 'invalid-request'), String(error))
        }
      },
    ),
    { numRuns: 40 },
  )
})

test('five redirects are followed and a sixth is not, and what goes out names nobody', async () => {
  const chain = await hostileServer((socket, head) => {
    const left = Number(/^GET \/(\d+)/.exec(head)?.[1])
    if (left === 0) reply(socket, ok(Buffer.from('end')), 'end')
    else reply(socket, `HTTP/1.1 307 R\r\ncontent-length: 0\r\nset-cookie: session=1\r\nlocation: /${left - 1}`)
  }, OPEN)
  const from = dialer({ allowedPorts: [chain.port] })
  const response = await from.get(`http://${OPEN}:${chain.port}/5`, { headers: { range: 'bytes=0-', 'if-range': '"a"' } })
  assert.equal((await buffer(response.body)).toString(), 'end')
  assert.equal(response.url, `http://${OPEN}:${chain.port}/0`)
  const names = chain.requests
    .at(-1)
    ?.split('\r\n')
    .slice(1, -2)
    .map((line) => line.split(':', 1)[0]?.toLowerCase())
    .sort()
  assert.deepEqual(names, ['accept', 'accept-encoding', 'connection', 'host', 'if-range', 'range', 'user-agent'])
  await assert.rejects(from.get(`http://${OPEN}:${chain.port}/6`), { code: 'invalid-request', message: /redirects more than 5/ })
  await chain.close()
})

const answers: readonly { name: string; head: string; body?: string; leaveOpen?: boolean; code: string; says: RegExp }[] = [
  { name: 'ends early', head: 'HTTP/1.1 200 OK\r\ncontent-length: 100', body: 'x', code: 'unavailable', says: /broke off|ended/ },
  {
    name: 'stops in the middle',
    head: 'HTTP/1.1 200 OK\r\ncontent-length: 100',
    body: 'x',
    leaveOpen: true,
    code: 'unavailable',
    says: /less than 10 bytes/,
  },
  {
    name: 'is encoded',
    head: 'HTTP/1.1 200 OK\r\ncontent-encoding: gzip',
    code: 'invalid-request',
    says: /Content-Encoding gzip/,
  },
  {
    name: 'has two lengths',
    head: 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2',
    body: 'xx',
    code: 'unavailable',
    says: /HTTP headers/,
  },
  {
    name: 'has a length of 2^70',
    head: `HTTP/1.1 200 OK\r\ncontent-length: ${2 ** 70}`,
    code: 'unavailable',
    says: /HTTP headers/,
  },
  {
    name: 'has 20 KiB of headers',
    head: `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_480)}`,
    code: 'unavailable',
    says: /HTTP headers/,
  },
  { name: 'is not HTTP', head: 'SSH-2.0-OpenSSH_9.2', code: 'unavailable', says: /HTTP headers/ },
  {
    name: 'has bad chunks',
    head: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked',
    body: 'zz\r\n',
    code: 'unavailable',
    says: /broke off/,
  },
  { name: 'redirects to nothing', head: 'HTTP/1.1 302 R\r\nlocation: http://', code: 'invalid-request', says: /https:\/\/host/ },
]
for (const { name, head, body = '', leaveOpen = false, code, says } of answers) {
  test(`an answer that ${name} is an error that says so`, async () => {
    const server = await hostileServer((socket) => {
      socket.write(Buffer.from(`${head}\r\n\r\n${body}`))
      if (!leaveOpen) socket.end()
    }, OPEN)
    const work = async () => buffer((await dialer({ allowedPorts: [server.port] }).get(`http://${OPEN}:${server.port}/`)).body)
    await assert.rejects(work, { code, message: says })
    await server.close()
  })
}

test('a source that never answers is given up, and an aborted request ends at once', async () => {
  const silent = await hostileServer(() => {}, OPEN)
  const from = (headersMs: number) => dialer({ allowedPorts: [silent.port], limits: { ...quick, headersMs } })
  await assert.rejects(from(50).get(`http://${OPEN}:${silent.port}/`), { code: 'unavailable' })
  const abort = new AbortController()
  const asked = from(60_000).get(`http://${OPEN}:${silent.port}/`, { signal: abort.signal })
  abort.abort()
  await assert.rejects(asked, { code: 'cancelled' })
  await silent.close()
})

test('https is taken from a server that proves its name, and does not lead back to http', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-dialer-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  try {
    const subject = ['-subj', '/CN=mirror.example', '-addext', 'subjectAltName=DNS:mirror.example', '-days', '2']
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-keyout',
        key,
        '-out',
        cert,
        ...subject,
      ],
      {
        stdio: 'ignore',
      },
    )
  } catch {
    t.skip('openssl is not installed')
    return
  }
  const server = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, response) => {
    if (request.url === '/down') response.writeHead(302, { location: `http://mirror.example:${open.port}/` }).end()
    else response.end('safe')
  })
  server.listen(0, OPEN)
  await once(server, 'listening')
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  const trusting = (certificates?: string[]) =>
    dialer({ allowedPorts: [port, open.port], resolve: async () => [OPEN], ...(certificates ? { certificates } : {}) })
  const trusted = trusting([readFileSync(cert, 'utf8')])
  assert.equal((await buffer((await trusted.get(`https://mirror.example:${port}/`)).body)).toString(), 'safe')
  await assert.rejects(trusted.get(`https://other.example:${port}/`), { code: 'unavailable' })
  await assert.rejects(trusting().get(`https://mirror.example:${port}/`), { code: 'unavailable' })
  await assert.rejects(trusted.get(`https://mirror.example:${port}/down`), {
    code: 'invalid-request',
    message: /from https to http/,
  })
})
