/** The same requests to Debian's Glance and to Imprint: status, headers and bodies are the same, but for what is explained. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { after, before, test } from 'node:test'
import { startImprint } from '../e2e/image-service.ts'
import type { Peer } from '../peers/daemon.ts'
import { noDebianCloud, startDebianCloud } from '../peers/debian-cloud.ts'
import { assembleCast, type KnownAccount, type Role } from '../peers/identity-client.ts'
import { compare, type Difference } from './compare.ts'
import { answerOf, type Side, type Step } from './exchange.ts'
import { knownDifferences } from './known-differences.ts'
import type { Scenario } from './scenario.ts'
import { changing } from './scenarios/changing.ts'
import { creating } from './scenarios/creating.ts'
import { data } from './scenarios/data.ts'
import { discovery } from './scenarios/discovery.ts'
import { importing } from './scenarios/importing.ts'
import { listing } from './scenarios/listing.ts'
import { metadefs } from './scenarios/metadefs.ts'
import { sharing } from './scenarios/sharing.ts'

const scenarios: readonly Scenario[] = [
  ...discovery,
  ...creating,
  ...listing,
  ...changing,
  ...data,
  ...sharing,
  ...importing,
  ...metadefs,
]
const skip = noDebianCloud()
const peers: Peer[] = []
const used = new Set<RegExp>()
let sides: { readonly glance: Side; readonly imprint: Side }

before(async () => {
  if (skip) return
  const files = await serveOneFile()
  peers.push(files)
  const given = process.env.IMPRINT_DIFFERENTIAL_IDENTITY // a Keystone that runs already, and its Glance
  const cloud = given ? undefined : await startDebianCloud([files.port])
  if (cloud) peers.push(cloud)
  const imprint = await startImprint({
    settings: { IMPRINT_IMPORT_HOSTS: '127.0.0.1', IMPRINT_IMPORT_PORTS: `80,443,${files.port}`, IMPRINT_QUOTA_IMAGES: '-1' },
  })
  peers.push(imprint)
  const web = { 'web.port': String(files.port) }
  const identityUrl = cloud?.keystone.url ?? given!
  const glance = { imageUrl: cloud?.glance.url ?? process.env.IMPRINT_DIFFERENTIAL_IMAGE!, identityUrl }
  sides = { glance: sideOf(glance, await assembleCast(identityUrl), web), imprint: sideOf(imprint, imprint.cast, web) }
})
after(async () => {
  for (const peer of peers.toReversed()) await peer.stop()
})

for (const { name, steps } of scenarios) {
  test(`as Glance: ${name}`, { skip }, async () => {
    const unexplained: string[] = []
    for (const step of steps) {
      const [glance, imprint] = await Promise.all([answerOf(sides.glance, step), answerOf(sides.imprint, step)])
      const title = titleOf(step)
      for (const found of compare(glance, imprint, sides)) if (!explained(title, found)) unexplained.push(describe(title, found))
    }
    assert.ok(unexplained.length === 0, `${unexplained.length} differences:\n${unexplained.join('\n')}`)
  })
}

test('every difference that is explained is still there', { skip }, () => {
  const unused = knownDifferences.filter(({ request }) => !used.has(request))
  assert.deepEqual(
    unused.map(({ because }) => because),
    [],
  )
})

function explained(title: string, { where, glance }: Difference): boolean {
  const known = knownDifferences.find(
    (each) => each.request.test(title) && each.where.test(where) && (each.glance?.test(glance) ?? true),
  )
  if (known) used.add(known.request)
  return known !== undefined
}

const describe = (title: string, { where, glance, imprint }: Difference) =>
  `  ${title}\n      ${where}: Glance ${glance}, Imprint ${imprint}`

function titleOf(step: Step): string {
  const body = step.json === undefined ? JSON.stringify(step.text ?? '') : JSON.stringify(step.json)
  const headers = step.headers && Object.keys(step.headers).length > 0 ? ` ${JSON.stringify(step.headers)}` : ''
  return `${step.as ?? 'member'} ${step.send} ${body.slice(0, 200)}${headers}`.trim()
}

function sideOf(
  at: { readonly imageUrl: string; readonly identityUrl: string },
  cast: Readonly<Record<Role, KnownAccount & { readonly token: string }>>,
  more: Record<string, string>,
): Side {
  const roles = Object.entries(cast) as [Role, KnownAccount & { readonly token: string }][]
  const names = roles.flatMap(([role, account]) => [
    [`${role}.project`, account.projectId],
    [`${role}.user`, account.userId],
  ])
  const tokens = Object.fromEntries(roles.map(([role, { token }]) => [role, token])) as Record<Role, string>
  return {
    url: at.imageUrl,
    identityRoot: at.identityUrl.replace(/\/v3$/, ''),
    tokens,
    names: { ...Object.fromEntries(names), ...more },
  }
}

async function serveOneFile(): Promise<Peer & { readonly port: number }> {
  const server = createServer((request, response) => {
    if (request.url !== '/a.raw') return response.writeHead(404).end()
    const bytes = Buffer.alloc(5120, 'a')
    return response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes.length }).end(bytes)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async () => {
    server.close()
    server.closeAllConnections()
  }
  return { name: 'files', port: (server.address() as { port: number }).port, stop }
}
