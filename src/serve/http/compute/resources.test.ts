import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { computeServer } from './compute-server.suite.ts'

const { ask, boot, close } = await computeServer({ quota: { instances: 12, cores: 24, ram: -1 } })
after(close)
const as = 'operators:admin'
const newFlavor = (more: object = {}) => ({ flavor: { name: 'nano', ram: 64, vcpus: 1, disk: 1, ...more } })
const names = (flavors: { name: string }[]) => flavors.map(({ name }) => name)

test('the standard flavors are there from the first start', async () => {
  const { flavors } = (await ask('GET /flavors/detail', { as: 'mine:reader' })).json
  assert.deepEqual(
    flavors.map(({ id, name, vcpus, ram, disk }: Record<string, unknown>) => [id, name, vcpus, ram, disk]),
    [
      ['1', 'm1.tiny', 1, 512, 1],
      ['2', 'm1.small', 1, 2048, 20],
      ['3', 'm1.medium', 2, 4096, 40],
      ['4', 'm1.large', 4, 8192, 80],
      ['5', 'm1.xlarge', 8, 16384, 160],
    ],
  )
  assert.deepEqual([flavors[0].swap, flavors[0].rxtx_factor, flavors[0]['OS-FLV-EXT-DATA:ephemeral']], ['', 1, 0])
})

test('an administrator makes flavors, others use them', async () => {
  const made = await ask('POST /flavors', { as, json: newFlavor({ id: 'n.1', swap: '16', 'OS-FLV-EXT-DATA:ephemeral': 2 }) })
  assert.deepEqual([made.status, made.json.flavor.id, made.json.flavor.swap], [200, 'n.1', 16])
  assert.equal((await ask('POST /flavors', { as, json: newFlavor({ id: 'n.1', name: 'x' }) })).json.conflictingRequest.code, 409)
  assert.equal((await ask('POST /flavors', { as, json: newFlavor({ id: 'n.2' }) })).status, 409)
  assert.equal((await ask('POST /flavors', { json: newFlavor({ name: 'y' }) })).status, 403)
  const auto = await ask('POST /flavors', {
    as,
    version: '2.55',
    json: newFlavor({ id: null, name: 'auto', description: 'words' }),
  })
  assert.match(auto.json.flavor.id, /^[0-9a-f-]{36}$/)
  assert.equal(auto.json.flavor.description, 'words')
  const changed = await ask(`PUT /flavors/${auto.json.flavor.id}`, {
    as,
    version: '2.55',
    json: { flavor: { description: null } },
  })
  assert.equal(changed.json.flavor.description, null)
  assert.equal((await ask(`PUT /flavors/n.1`, { as, json: { flavor: { description: null } } })).status, 404)
  assert.equal((await ask(`DELETE /flavors/${auto.json.flavor.id}`, { as })).status, 202)
  assert.equal((await ask(`DELETE /flavors/${auto.json.flavor.id}`, { as })).status, 404)
  for (const wrong of [
    { ram: 0 },
    { ram: '0' },
    { vcpus: 2 ** 31 },
    { id: ' a' },
    { name: '' },
    { disk: -1 },
    { disk: 1.5 },
    { x: 1 },
  ]) {
    const { status } = await ask('POST /flavors', { as, json: newFlavor({ name: 'wrong', ...wrong }) })
    assert.equal(status, 400, JSON.stringify(wrong))
  }
})

test('flavors are filtered, sorted and paged', async () => {
  const list = async (query: string) => names((await ask(`GET /flavors?${query}`)).json.flavors ?? [])
  assert.deepEqual(await list('minRam=4096'), ['m1.medium', 'm1.large', 'm1.xlarge'])
  assert.deepEqual(await list('minDisk=100'), ['m1.xlarge'])
  assert.deepEqual(await list('sort_key=memory_mb&sort_dir=desc&limit=2'), ['m1.xlarge', 'm1.large'])
  const { flavors, flavors_links } = (await ask('GET /flavors?limit=2&marker=1')).json
  assert.deepEqual(names(flavors), ['m1.small', 'm1.medium'])
  assert.match(flavors_links[0].href, /\/flavors\?limit=2&marker=3$/)
  for (const wrong of ['marker=none', 'minRam=x', 'sort_key=secret', 'limit=-1']) {
    assert.equal((await ask(`GET /flavors?${wrong}`)).status, 400, wrong)
  }
})

test('a private flavor is seen by those who were given it', async () => {
  const json = newFlavor({ id: 'private', name: 'private', 'os-flavor-access:is_public': false })
  assert.equal((await ask('POST /flavors', { as, json })).status, 200)
  assert.equal((await ask('GET /flavors/private')).status, 404)
  const add = { addTenantAccess: { tenant: 'mine' } }
  const access = await ask('POST /flavors/private/action', { as, json: add })
  assert.deepEqual(access.json, { flavor_access: [{ flavor_id: 'private', tenant_id: 'mine' }] })
  assert.equal((await ask('POST /flavors/private/action', { as, json: add })).status, 409)
  assert.equal((await ask('GET /flavors/private')).status, 200)
  assert.equal((await ask('GET /flavors/private', { as: 'other:member' })).status, 404)
  assert.ok(names((await ask('GET /flavors')).json.flavors).includes('private'))
  assert.deepEqual(names((await ask('GET /flavors?is_public=false', { as })).json.flavors), ['private'])
  assert.ok(names((await ask('GET /flavors?is_public=None', { as })).json.flavors).length > 5)
  assert.deepEqual((await ask('GET /flavors/private/os-flavor-access', { as })).json, access.json)
  assert.equal((await ask('GET /flavors/1/os-flavor-access', { as })).status, 404)
  assert.equal((await ask('POST /flavors/1/action', { as, json: add })).status, 409)
  const remove = { removeTenantAccess: { tenant: 'mine' } }
  assert.deepEqual((await ask('POST /flavors/private/action', { as, json: remove })).json, { flavor_access: [] })
  assert.equal((await ask('POST /flavors/private/action', { as, json: remove })).status, 404)
})

test('extra specs are set, shown and removed', async () => {
  const path = '/flavors/2/os-extra_specs'
  const specs = { extra_specs: { 'hw:cpu_policy': 'shared', count: 3 } }
  assert.deepEqual((await ask(`POST ${path}`, { as, json: specs })).json, {
    extra_specs: { 'hw:cpu_policy': 'shared', count: '3' },
  })
  assert.equal((await ask(`POST ${path}`, { json: specs })).status, 403)
  assert.deepEqual((await ask(`GET ${path}/count`)).json, { count: '3' })
  assert.deepEqual((await ask(`PUT ${path}/count`, { as, json: { count: '4' } })).json, { count: '4' })
  assert.equal((await ask(`PUT ${path}/count`, { as, json: { other: '4' } })).status, 400)
  assert.equal((await ask('GET /flavors/2', { version: '2.61' })).json.flavor.extra_specs.count, '4')
  assert.equal((await ask(`DELETE ${path}/count`, { as })).status, 200)
  assert.equal((await ask(`GET ${path}/count`)).status, 404)
  assert.equal((await ask(`POST ${path}`, { as, json: { extra_specs: {} } })).status, 400)
})

test("keypairs are made, imported, listed and deleted; they are their user's", async () => {
  const made = await ask('POST /os-keypairs', { json: { keypair: { name: 'made' } } })
  assert.equal(made.status, 200)
  assert.match(made.json.keypair.private_key, /^-----BEGIN OPENSSH PRIVATE KEY-----/)
  const { public_key } = made.json.keypair
  const imported = await ask('POST /os-keypairs', {
    version: '2.2',
    json: { keypair: { name: 'imported', public_key, type: 'ssh' } },
  })
  assert.deepEqual([imported.status, imported.json.keypair.type], [201, 'ssh'])
  assert.equal(imported.json.keypair.fingerprint, made.json.keypair.fingerprint)
  assert.equal(imported.json.keypair.private_key, undefined)
  assert.equal((await ask('POST /os-keypairs', { json: { keypair: { name: 'made' } } })).status, 409)
  const x509 = await ask('POST /os-keypairs', { version: '2.2', json: { keypair: { name: 'w', type: 'x509' } } })
  assert.match(x509.json.badRequest.message, /x509 are for guests with Windows/)
  const wrong = await ask('POST /os-keypairs', { json: { keypair: { name: 'w', public_key: 'ssh-rsa AAAA' } } })
  assert.match(wrong.json.badRequest.message, /^Keypair data is invalid/)
  const { keypairs } = (await ask('GET /os-keypairs')).json
  assert.deepEqual(
    keypairs.map(({ keypair }: { keypair: { name: string } }) => keypair.name),
    ['imported', 'made'],
  )
  assert.equal((await ask('GET /os-keypairs?limit=1', { version: '2.35' })).json.keypairs_links.length, 1)
  assert.equal((await ask('GET /os-keypairs', { as: 'other:member' })).json.keypairs.length, 0)
  assert.equal((await ask('GET /os-keypairs/made')).json.keypair.user_id, 'user-of-mine')
  const theirs = await ask('GET /os-keypairs?user_id=user-of-mine', { as, version: '2.10' })
  assert.equal(theirs.json.keypairs.length, 2)
  assert.equal((await ask('GET /os-keypairs?user_id=user-of-mine', { as: 'other:member', version: '2.10' })).status, 403)
  assert.equal((await ask('DELETE /os-keypairs/made')).status, 202)
  assert.equal((await ask('DELETE /os-keypairs/imported', { version: '2.2' })).status, 204)
  assert.equal((await ask('DELETE /os-keypairs/made')).status, 404)
})

test('limits and quotas are shown with what is used of them', async () => {
  await boot()
  const { absolute } = (await ask('GET /limits')).json.limits
  const shown = ['maxTotalInstances', 'maxTotalCores', 'maxTotalRAMSize', 'totalInstancesUsed', 'totalCoresUsed', 'totalRAMUsed']
  assert.deepEqual(
    shown.map((name) => absolute[name]),
    [12, 24, -1, 1, 1, 512],
  )
  assert.equal((await ask('GET /limits?tenant_id=other')).status, 403)
  assert.equal((await ask('GET /limits?tenant_id=mine', { as })).json.limits.absolute.totalInstancesUsed, 1)
  assert.equal((await ask('GET /os-quota-sets/mine')).json.quota_set.instances, 12)
  assert.deepEqual((await ask('GET /os-quota-sets/mine/detail')).json.quota_set.cores, { limit: 24, in_use: 1, reserved: 0 })
})

test('the host is where clients look for hosts, and for administrators', async () => {
  assert.equal((await ask('GET /os-availability-zone')).json.availabilityZoneInfo[0].zoneName, 'nova')
  for (const path of ['/os-availability-zone/detail', '/os-services', '/os-hypervisors', '/os-hypervisors/detail']) {
    assert.equal((await ask(`GET ${path}`)).status, 403, path)
  }
  const [zone] = (await ask('GET /os-availability-zone/detail', { as })).json.availabilityZoneInfo
  assert.equal(zone.hosts.host['nova-compute'].available, true)
  const [service] = (await ask('GET /os-services', { as })).json.services
  assert.deepEqual([service.binary, service.host, service.state, service.status], ['nova-compute', 'host', 'up', 'enabled'])
  const [old] = (await ask('GET /os-hypervisors/detail', { as })).json.hypervisors
  assert.deepEqual(
    [old.id, old.hypervisor_hostname, old.hypervisor_type, old.running_vms, old.vcpus_used],
    [1, 'host', 'memory', 1, 1],
  )
  assert.deepEqual([old.local_gb, old.free_disk_gb, typeof old.cpu_info], [100, 60, 'string'])
  const [{ id }] = (await ask('GET /os-hypervisors', { as, version: '2.53' })).json.hypervisors
  assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/)
  assert.equal((await ask(`GET /os-hypervisors/${id}`, { as, version: '2.53' })).json.hypervisor.cpu_info.arch, 'x86_64')
  assert.equal((await ask('GET /os-hypervisors/2', { as })).status, 404)
  assert.match((await ask('GET /os-hypervisors/1/uptime', { as })).json.hypervisor.uptime, / up \d+ days?, .*load average: /)
  assert.equal((await ask('GET /os-hypervisors/hos/search', { as })).json.hypervisors[0].hypervisor_hostname, 'host')
  assert.equal((await ask('GET /os-hypervisors/none/search', { as })).status, 404)
  assert.equal((await ask('GET /os-hypervisors/host/servers', { as })).json.hypervisors[0].servers.length, 1)
  assert.equal((await ask('GET /os-hypervisors?with_servers=1', { as, version: '2.53' })).json.hypervisors[0].servers.length, 1)
  assert.equal((await ask('GET /os-hypervisors/host/search', { as, version: '2.53' })).status, 404)
  assert.equal((await ask('GET /os-hypervisors/statistics', { as })).json.hypervisor_statistics.count, 1)
})
