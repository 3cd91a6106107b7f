/** The real `openstack` client of OpenStack against the identity API over TCP: what people type, as they type it. */
import assert from 'node:assert/strict'
import { type ExecFileException, execFile, spawnSync } from 'node:child_process'
import type { AddressInfo } from 'node:net'
import { after, test } from 'node:test'
import { ADMIN_PASSWORD, openService } from './identity-service.suite.ts'

const CLIENT = '/usr/bin/openstack' // Debian's python3-openstackclient
const missing = spawnSync(CLIENT, ['--version']).status === 0 ? false : `${CLIENT} is not installed (python3-openstackclient)`

const service = missing ? undefined : await openService()
const address = await service?.app.listen({ host: '127.0.0.1', port: 0 })
after(() => service?.close())
const port = (service?.app.server.address() as AddressInfo | undefined)?.port

interface Login {
  readonly user?: string
  readonly password?: string
  readonly project?: string
  readonly extra?: Readonly<Record<string, string>>
}

/** Runs the client; resolves with the JSON it printed (or its text), rejects with what it complained about. */
function openstack(
  words: string,
  { user = 'admin', password = ADMIN_PASSWORD, project = 'admin', extra }: Login = {},
): Promise<unknown> {
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
  return new Promise((resolve, reject) => {
    execFile(CLIENT, words.split(' '), { env, timeout: 60_000 }, (error: ExecFileException | null, stdout, stderr) => {
      if (error) reject(new Error(`openstack ${words}: ${stderr.trim()}`))
      else resolve(/^\s*[[{]/.test(stdout) ? JSON.parse(stdout) : stdout.trim())
    })
  })
}
const json = (words: string, login?: Login) => openstack(`${words} -f json`, login)
const names = (rows: unknown) => (rows as { Name: string }[]).map(({ Name }) => Name)

test('openstack: tokens, catalog, projects, users and roles', { skip: missing }, async () => {
  assert.ok(address)
  const token = (await json('token issue')) as { id: string; project_id: string }
  assert.match(token.id, /^imp_/)
  const catalog = (await json('catalog list')) as { Name: string; Type: string }[]
  assert.deepEqual(catalog.map(({ Type }) => Type).sort(), ['identity', 'image'])

  await json('project create --description first --tag blue web')
  await openstack('project set --description second --property colour=red web')
  const project = (await json('project show web')) as Record<string, unknown>
  assert.equal(project.description, 'second')
  assert.equal(project.colour, 'red')
  assert.deepEqual(project.tags, ['blue'])
  assert.ok(names(await json('project list')).includes('web'))

  await json('user create --password first-password --email ann@example.org --project web ann')
  await openstack('user set --description someone ann')
  const user = (await json('user show ann')) as Record<string, unknown>
  assert.equal(user.email, 'ann@example.org')
  assert.equal(user.description, 'someone')
  assert.equal(user.default_project_id, project.id)
  assert.ok(names(await json('user list')).includes('ann'))

  await openstack('role add --user ann --project web member')
  const assigned = (await json('role assignment list --user ann --names')) as { Role: string; Project: string }[]
  assert.deepEqual([assigned[0]?.Role, assigned[0]?.Project], ['member', 'web@Default'])
  assert.deepEqual(names(await json('role list')).sort(), ['admin', 'member', 'reader'])

  const ann = { user: 'ann', password: 'first-password', project: 'web' }
  const hers = (await json('token issue', ann)) as { project_id: string }
  assert.equal(hers.project_id, project.id)
  await assert.rejects(json('user list', ann), /HTTP 403/)

  const made = (await json('application credential create --role reader robot', ann)) as { id: string; secret: string }
  const robot = {
    extra: {
      OS_AUTH_TYPE: 'v3applicationcredential',
      OS_APPLICATION_CREDENTIAL_ID: made.id,
      OS_APPLICATION_CREDENTIAL_SECRET: made.secret,
    },
  }
  assert.equal(((await json('token issue', robot)) as { project_id: string }).project_id, project.id)
  assert.deepEqual(names(await json('application credential list', ann)), ['robot'])
  await openstack('application credential delete robot', ann)
  await assert.rejects(json('token issue', robot), /HTTP 401/)

  await openstack('user password set --original-password first-password --password second-password', ann)
  await assert.rejects(json('token issue', ann), /HTTP 401/)
  await json('token issue', { ...ann, password: 'second-password' })

  await openstack('role remove --user ann --project web member')
  await assert.rejects(json('token issue', { ...ann, password: 'second-password' }), /HTTP 401/)
  await openstack('user set --disable ann')
  await openstack('user delete ann')
  await openstack('project delete web')
  assert.ok(!names(await json('project list')).includes('web'))
})

test('openstack: services, regions, domains and limits', { skip: missing }, async () => {
  assert.deepEqual(names(await json('service list')).sort(), ['glance', 'keystone'])
  assert.equal(((await json('endpoint list')) as unknown[]).length, 6)
  assert.equal(((await json('region list')) as unknown[]).length, 1)
  assert.deepEqual(names(await json('domain list')), ['Default'])

  await json('project create limited')
  const registered = (await json('registered limit list')) as { 'Resource Name': string; 'Default Limit': number }[]
  assert.ok(registered.some((limit) => limit['Resource Name'] === 'image_count_total' && limit['Default Limit'] === 50))
  const limit = (await json(
    'limit create --project limited --service glance --region RegionOne --resource-limit 7 image_count_total',
  )) as { id: string; project_id: string }
  assert.equal(await service?.identity.limits.of(limit.project_id, 'image_count_total'), 7)
  await openstack(`limit set --resource-limit 8 ${limit.id}`)
  assert.equal(await service?.identity.limits.of(limit.project_id, 'image_count_total'), 8)
  assert.equal(((await json('limit list --project limited')) as unknown[]).length, 1)
  await openstack(`limit delete ${limit.id}`)
  assert.equal(await service?.identity.limits.of(limit.project_id, 'image_count_total'), 50)
  const system = {
    extra: { OS_USERNAME: 'admin', OS_PASSWORD: ADMIN_PASSWORD, OS_USER_DOMAIN_NAME: 'Default', OS_SYSTEM_SCOPE: 'all' },
  }
  assert.deepEqual(await json('limit list', system), [])
})
