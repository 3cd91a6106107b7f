import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { computeServer } from './compute-server.suite.ts'

const { ask, boot, world, close } = await computeServer({ otherHosts: ['left'] })
after(close)
const admin = { as: 'admins:admin', version: '2.79' } as const
const shown = async (id: string) => {
  await world.idle()
  return (await ask(`GET /servers/${id}`, admin)).json.server
}
const hostOf = async (id: string) => (await shown(id))['OS-EXT-SRV-ATTR:host']
const move = (id: string, more: object, version = '2.79', as: string = admin.as) =>
  ask(`POST /servers/${id}/action`, { json: { 'os-migrateLive': more }, as, version })

test('an administrator names the host in every way that Nova knows, and it is shown', async () => {
  const named = { name: 'on', networks: 'none' }
  assert.equal(await hostOf(await boot({ ...named, availability_zone: 'nova:left' }, admin)), 'left')
  assert.equal(await hostOf(await boot({ ...named, host: 'left' }, admin)), 'left')
  const id = await boot({ ...named, hypervisor_hostname: 'left' }, admin)
  assert.equal((await shown(id))['OS-EXT-SRV-ATTR:hypervisor_hostname'], 'left')
  const wrong = { name: 'x', imageRef: world.image, flavorRef: '1', networks: 'none' }
  const asked = (server: object, as: string = admin.as) => ask('POST /servers', { json: { server }, as, version: '2.79' })
  assert.equal((await asked({ ...wrong, host: 'nowhere' })).status, 400)
  assert.equal((await asked({ ...wrong, host: 'left', hypervisor_hostname: 'host' })).status, 400)
  assert.equal((await asked({ ...wrong, host: 'left' }, 'mine:member')).status, 403)
  const listed = await ask('GET /servers?host=left&all_tenants=1', admin)
  assert.equal(listed.json.servers.length, 3)
})

test('hypervisors, services and zones tell of all hosts', async () => {
  const { hypervisors } = (await ask('GET /os-hypervisors/detail', admin)).json
  assert.deepEqual(
    hypervisors.map((each: { hypervisor_hostname: string; running_vms: number }) => [each.hypervisor_hostname, each.running_vms]),
    [
      ['host', 0],
      ['left', 3],
    ],
  )
  const old = (await ask('GET /os-hypervisors', { ...admin, version: '2.1' })).json.hypervisors
  assert.deepEqual(
    old.map(({ id }: { id: number }) => id),
    [1, 2],
  )
  assert.equal((await ask(`GET /os-hypervisors/${hypervisors[1].id}`, admin)).json.hypervisor.hypervisor_hostname, 'left')
  const page = (await ask(`GET /os-hypervisors?limit=1&marker=${hypervisors[0].id}`, admin)).json.hypervisors
  assert.equal(page[0].hypervisor_hostname, 'left')
  assert.equal((await ask('GET /os-hypervisors/statistics', admin)).json.hypervisor_statistics.running_vms, 3)
  assert.equal((await ask('GET /os-services', admin)).json.services.length, 2)
  assert.deepEqual(
    Object.keys((await ask('GET /os-availability-zone/detail', admin)).json.availabilityZoneInfo[0].hosts).sort(),
    ['host', 'left'],
  )
})

test('os-migrateLive takes what its version has, from administrators', async () => {
  const id = await boot()
  const from = await hostOf(id)
  const refused: readonly (readonly [string, object])[] = [
    ['2.1', { host: 'left', block_migration: false }],
    ['2.24', { host: 'left', block_migration: 'auto', disk_over_commit: false }],
    ['2.25', { host: 'left', block_migration: 'auto', disk_over_commit: false }],
    ['2.29', { host: 'left', block_migration: 'auto', force: false }],
    ['2.30', { host: 'left', block_migration: 'auto', force: true }],
    ['2.68', { host: 'left', block_migration: 'auto', force: false }],
    ['2.79', { block_migration: 'auto' }],
    ['2.79', { host: from, block_migration: 'auto' }],
    ['2.79', { host: 'nowhere', block_migration: 'auto' }],
  ]
  for (const [version, body] of refused)
    assert.equal((await move(id, body, version)).status, 400, JSON.stringify([version, body]))
  assert.equal((await move(id, { host: null, block_migration: 'auto' }, '2.79', 'mine:member')).status, 403)
  const taken: readonly (readonly [string, object])[] = [
    ['2.1', { host: null, block_migration: false, disk_over_commit: 'False' }],
    ['2.25', { host: null, block_migration: 'auto' }],
    ['2.30', { host: null, block_migration: true, force: false }],
    ['2.79', { host: null, block_migration: 'auto' }],
  ]
  let at = from
  for (const [version, body] of taken) {
    const answer = await move(id, body, version)
    assert.equal(answer.status, 202, answer.text)
    const now = await shown(id)
    assert.notEqual(now['OS-EXT-SRV-ATTR:host'], at)
    assert.equal(now.status, 'ACTIVE')
    at = now['OS-EXT-SRV-ATTR:host']
  }
  const [newest] = (await ask(`GET /servers/${id}/os-instance-actions`, admin)).json.instanceActions
  assert.equal(newest.action, 'live-migration')
  assert.match(newest.message, /moved to another host; the guest stood still for 0 ms/)
  const action = (await ask(`GET /servers/${id}/os-instance-actions/${newest.request_id}`, admin)).json.instanceAction
  assert.deepEqual([action.events[0].result, action.events[0].host], ['Success', at])
})
