/**
 * The real `openstack` client against the identity API over TCP. It takes a second to start, so each test hands it a session of
 * commands on its standard input.
 */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { after, test } from 'node:test'
import { ADMIN_PASSWORD, openService } from './identity-service.suite.ts'

const CLIENT = '/usr/bin/openstack' // Debian's python3-openstackclient
const missing = spawnSync(CLIENT, ['--version']).status === 0 ? false : `${CLIENT} is not installed (python3-openstackclient)`

const service = missing ? undefined : await openService()
await service?.app.listen({ host: '127.0.0.1', port: 0 })
after(() => service?.close())
const port = (service?.app.server.address() as AddressInfo | undefined)?.port

interface Login {
  readonly user?: string
  readonly password?: string
  readonly project?: string
  readonly extra?: Readonly<Record<string, string>>
}

/**
 * Runs the commands one after the other.
 * @returns the JSON that they printed, in order, and what the client complained about
 */
async function session(
  commands: readonly string[],
  { user = 'admin', password = ADMIN_PASSWORD, project = 'admin', extra }: Login = {},
) {
  const byPassword = {
    OS_USERNAME: user,
    OS_PASSWORD: password,
    OS_PROJECT_NAME: project,
    OS_USER_DOMAIN_NAME: 'Default',
    OS_PROJECT_DOMAIN_NAME: 'Default',
  }
  const env = {
    PATH: '/usr/bin:/bin',
    HOME: '/nonexistent',
    PYTHONWARNINGS: 'ignore',
    no_proxy: '127.0.0.1',
    OS_AUTH_URL: `http://127.0.0.1:${port}/identity/v3`,
    OS_IDENTITY_API_VERSION: '3',
    OS_REGION_NAME: 'RegionOne',
    ...(extra ?? byPassword),
  }
  const client = spawn(CLIENT, [], { env, timeout: 300_000 })
  client.stdin.end(`${commands.join('\n')}\n`)
  const [printed, complaints] = await Promise.all([text(client.stdout), text(client.stderr)])
  return { documents: documentsIn(printed), complaints }
}

/** Each document begins and ends on a line with an unindented bracket. */
function documentsIn(printed: string): unknown[] {
  const found = printed.matchAll(/^(?:\[\]|\{\}|[[{]$[\s\S]*?^[\]}])$/gm)
  return [...found].map(([document]) => JSON.parse(document))
}
const names = (rows: unknown) => (rows as { Name: string }[]).map(({ Name }) => Name).sort()
type Row = Record<string, unknown>

test('openstack: an administrator makes a project and a user, who makes a credential for a program', {
  skip: missing,
}, async () => {
  const made = await session([
    'token issue -f json',
    'catalog list -f json',
    'project create --description first --tag blue web -f json',
    'project set --description second --property colour=red web',
    'project show web -f json',
    'user create --password first-password --email ann@example.org --project web ann -f json',
    'user set --description someone ann',
    'user show ann -f json',
    'user list -f json',
    'role list -f json',
    'role add --user ann --project web member',
    'role assignment list --user ann --names -f json',
  ])
  assert.equal(made.complaints, '')
  const [token, catalog, , project, , user, users, roles, assigned] = made.documents as [
    Row,
    Row[],
    Row,
    Row,
    Row,
    Row,
    Row[],
    Row[],
    Row[],
  ]
  assert.match(String(token.id), /^imp_/)
  assert.deepEqual(catalog.map(({ Type }) => Type).sort(), ['compute', 'identity', 'image', 'volumev3'])
  assert.deepEqual([project.description, project.colour, project.tags], ['second', 'red', ['blue']])
  assert.deepEqual([user.email, user.description, user.default_project_id], ['ann@example.org', 'someone', project.id])
  assert.deepEqual(names(users), ['admin', 'ann'])
  assert.deepEqual(names(roles), ['admin', 'member', 'reader'])
  assert.deepEqual([assigned[0]?.Role, assigned[0]?.Project], ['member', 'web@Default'])

  const ann = { user: 'ann', password: 'first-password', project: 'web' }
  const hers = await session(
    ['token issue -f json', 'application credential create --role reader robot -f json', 'user list -f json'],
    ann,
  )
  const [own, credential] = hers.documents as [Row, Row]
  assert.equal(own.project_id, project.id)
  assert.match(hers.complaints, /HTTP 403/)

  const robot = {
    extra: {
      OS_AUTH_TYPE: 'v3applicationcredential',
      OS_APPLICATION_CREDENTIAL_ID: String(credential.id),
      OS_APPLICATION_CREDENTIAL_SECRET: String(credential.secret),
    },
  }
  assert.equal(((await session(['token issue -f json'], robot)).documents[0] as Row).project_id, project.id)
  const over = await session(
    [
      'application credential list -f json',
      'application credential delete robot',
      'user password set --original-password first-password --password second-password',
    ],
    ann,
  )
  assert.equal(over.complaints, '')
  assert.deepEqual(names(over.documents[0]), ['robot'])
  assert.match((await session(['token issue -f json'], robot)).complaints, /HTTP 401/)
  assert.match((await session(['token issue -f json'], ann)).complaints, /HTTP 401/)
  assert.equal((await session(['token issue -f json'], { ...ann, password: 'second-password' })).documents.length, 1)

  const ended = await session([
    'role remove --user ann --project web member',
    'user set --disable ann',
    'user show ann -f json',
    'user delete ann',
    'project delete web',
    'project list -f json',
  ])
  assert.equal(ended.complaints, '')
  assert.equal((ended.documents[0] as Row).enabled, false)
  assert.deepEqual(names(ended.documents[1]), ['admin'])
})

test('openstack: services, regions, domains and limits', { skip: missing }, async () => {
  const found = await session([
    'service list -f json',
    'endpoint list -f json',
    'region list -f json',
    'domain list -f json',
    'registered limit list -f json',
    'project create limited -f json',
    'limit create --project limited --service glance --region RegionOne --resource-limit 7 image_count_total -f json',
    'limit list --project limited -f json',
  ])
  assert.equal(found.complaints, '')
  const [services, endpoints, regions, domains, registered, project, limit, limits] = found.documents as [
    Row[],
    Row[],
    Row[],
    Row[],
    Row[],
    Row,
    Row,
    Row[],
  ]
  assert.deepEqual(names(services), ['cinderv3', 'glance', 'keystone', 'nova'])
  assert.deepEqual([endpoints.length, regions.length], [12, 1])
  assert.deepEqual(names(domains), ['Default'])
  assert.ok(registered.some((row) => row['Resource Name'] === 'image_count_total' && row['Default Limit'] === 50))
  assert.equal(limits.length, 1)
  const held = () => service?.identity.limits.of(String(project.id), 'image_count_total')
  assert.equal(await held(), 7)
  await session([`limit set --resource-limit 8 ${limit.id}`])
  assert.equal(await held(), 8)
  const system = {
    extra: { OS_USERNAME: 'admin', OS_PASSWORD: ADMIN_PASSWORD, OS_USER_DOMAIN_NAME: 'Default', OS_SYSTEM_SCOPE: 'all' },
  }
  const ended = await session([`limit delete ${limit.id}`, 'limit list -f json'], system)
  assert.equal(ended.complaints, '')
  assert.deepEqual(ended.documents, [[]])
  assert.equal(await held(), 50)
})
