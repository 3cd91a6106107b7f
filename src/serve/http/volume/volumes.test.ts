import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import pino from 'pino'
import { ServiceError } from '../../../base/errors.ts'
import type { Authenticator } from '../../../identity/identity.ts'
import { someone, type VolumeWorld, volumeWorld } from '../../../volumes/volume-world.suite.ts'
import { createMetrics } from '../metrics.ts'
import { createServer } from '../server.ts'
import { volumeVersions } from './versions.ts'
import { volumeApi } from './volume-api.ts'

let world: VolumeWorld
let app: ReturnType<typeof createServer>
before(async () => {
  world = await volumeWorld({ quota: { volumes: 30 } })
  const authenticator: Authenticator = {
    async authenticate(token, requestId) {
      const [project = '', role = ''] = token.split(':')
      if (!/^(none|reader|member|admin)$/.test(role))
        throw new ServiceError('unauthenticated', 'this token is not good: log in again')
      return { ...someone(project, role as 'member'), requestId, expiresAt: Number.MAX_SAFE_INTEGER, tokenKey: '' }
    },
  }
  const baseUrlOf = ({ host }: { readonly host: string }) => `http://${host}`
  app = createServer({
    apis: [volumeApi({ ports: world.ports, baseUrlOf })],
    authenticator,
    metrics: createMetrics(() => Promise.reject(new Error('there is no store'))),
    log: pino({ level: 'silent' }),
    ready: async () => {},
    versions: volumeVersions,
    baseUrlOf,
  })
  await app.ready()
})
after(async () => {
  await app.close()
  await world.close()
})

interface Asked {
  readonly as?: string | null
  readonly json?: unknown
  readonly version?: string
}
async function ask(line: string, { as = 'mine:member', json, version }: Asked = {}) {
  const [method = 'GET', path = ''] = line.split(' ')
  const reply = await app.inject({
    method: method as 'GET',
    url: path.startsWith('^') ? path.slice(1) : `/volume/v3${path}`,
    headers: {
      ...(as === null ? {} : { 'x-auth-token': as }),
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
      ...(version === undefined ? {} : { 'openstack-api-version': `volume ${version}` }),
    },
    ...(json === undefined ? {} : { payload: JSON.stringify(json) }),
  })
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into what a client would read
  return { status: reply.statusCode, headers: reply.headers, json: (reply.body === '' ? undefined : reply.json()) as any }
}
const make = async (more: object = {}, as = 'mine:member'): Promise<string> => {
  const { status, json } = await ask('POST /volumes', { json: { volume: { size: 1, name: 'v', ...more } }, as })
  assert.equal(status, 202, JSON.stringify(json))
  await world.idle()
  return json.volume.id
}

test('versions are told to everybody, chosen by a header, and refused where they are not spoken', async () => {
  const { status, json } = await ask('GET ^/volume/', { as: null })
  assert.deepEqual(
    [status, json.versions[0].id, json.versions[0].version, json.versions[0].min_version],
    [300, 'v3.0', '3.67', '3.0'],
  )
  for (const [version, answer, spoken] of [
    [undefined, 200, '3.0'],
    ['3.59', 200, '3.59'],
    ['latest', 200, '3.67'],
    ['3.99', 406, '3.0'],
    ['2.0', 406, '3.0'],
    ['three', 400, '3.0'],
  ] as const) {
    const reply = await ask('GET /volumes', version === undefined ? {} : { version })
    assert.deepEqual([reply.status, reply.headers['openstack-api-version']], [answer, `volume ${spoken}`])
  }
  assert.equal((await ask('GET /volumes/summary', { version: '3.11' })).status, 404)
})

test('a volume is shown in the words of each version; paths may name the project, and no other', async () => {
  const id = await make({ metadata: { a: '1' }, description: 'words' })
  const { volume } = (await ask(`GET /volumes/${id}`)).json
  assert.deepEqual([volume.status, volume.size, volume.bootable, volume.volume_type], ['available', 1, 'false', 'imprint'])
  assert.match(volume.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/)
  assert.equal(volume.links[0].href, `http://localhost:80/volume/v3/volumes/${id}`)
  for (const absent of ['os-vol-host-attr:host', 'group_id', 'volume_type_id', 'volume_image_metadata'])
    assert.ok(!(absent in volume), absent)
  const later = (await ask(`GET /mine/volumes/${id}`, { version: '3.65' })).json.volume
  assert.deepEqual([later.group_id, later.shared_targets, later.consumes_quota], [null, false, true])
  assert.equal(later.links[0].href, `http://localhost:80/volume/v3/mine/volumes/${id}`)
  const host = (await ask(`GET /volumes/${id}`, { as: 'ops:admin' })).json.volume['os-vol-host-attr:host']
  assert.equal(host, 'host@imprint#imprint')
  const foreign = await ask(`GET /theirs/volumes/${id}`)
  assert.deepEqual([foreign.status, foreign.json.badRequest.code], [400, 400])
  const hidden = await ask(`GET /volumes/${id}`, { as: 'theirs:member' })
  assert.deepEqual(hidden.json, { itemNotFound: { code: 404, message: `Volume ${id} could not be found.` } })
})

test('lists are filtered, sorted, paged and counted', async () => {
  const as = 'listing:member'
  const ids: string[] = []
  for (const [name, size] of [
    ['b', 3],
    ['a', 2],
    ['c', 1],
  ] as const)
    ids.push(await make({ name, size, metadata: { n: name } }, as))
  const names = async (query: string, version = '3.0', who = as) => {
    const { status, json } = await ask(`GET /volumes/detail?${query}`, { as: who, version })
    return status === 200 ? json.volumes.map(({ name }: { name: string }) => name).join('') : status
  }
  assert.equal(await names(''), 'cab')
  assert.equal(await names('sort=name:asc'), 'abc')
  assert.equal(await names('sort=size'), 'bac')
  assert.equal(await names('sort_key=name&sort_dir=desc'), 'cba')
  assert.equal(await names('sort=secret'), 400)
  assert.equal(await names('name=a&status=available'), 'a')
  assert.equal(await names('name~=z', '3.31'), '')
  assert.equal(await names(`metadata=${encodeURIComponent("{'n': 'b'}")}`), 'b')
  assert.equal(await names('metadata=n'), 400)
  assert.equal(await names('bootable=true'), '')
  assert.equal(await names('created_at=gt:2100-01-01T00:00:00', '3.60'), '')
  assert.equal(await names('limit=1&offset=1&sort=name:asc'), 'b')
  assert.equal(await names('limit=x'), 400)
  assert.equal(await names(`marker=${'0'.repeat(8)}-0000-0000-0000-${'0'.repeat(12)}`), 404)
  assert.equal(await names('all_tenants=1&project_id=listing', '3.0', 'ops:admin'), 'cab')
  assert.equal(await names('all_tenants=1', '3.0', 'listing:reader'), 'cab', 'left alone, as in Cinder')
  const page = (await ask('GET /volumes?limit=2&sort=name:asc&with_count=true', { as, version: '3.45' })).json
  assert.deepEqual([page.count, page.volumes.length], [3, 2])
  const next = page.volumes_links[0].href.slice('http://localhost:80/volume/v3'.length)
  assert.equal((await ask(`GET ${next}`, { as, version: '3.45' })).json.volumes[0].name, 'c')
  const { 'volume-summary': summary } = (await ask('GET /volumes/summary', { as, version: '3.36' })).json
  assert.deepEqual(summary, { total_size: 6, total_count: 3, metadata: { n: ['c', 'a', 'b'] } })
})

test('actions and metadata change a volume; what is not served, or no action, says so', async () => {
  const id = await make()
  const act = (json: object, as = 'mine:member') => ask(`POST /volumes/${id}/action`, { json, as })
  for (const [json, status] of [
    [{ 'os-extend': { new_size: '2' } }, 202],
    [{ 'os-set_bootable': { bootable: 'True' } }, 200],
    [{ 'os-update_readonly_flag': { readonly: true } }, 202],
    [{ 'os-set_image_metadata': { metadata: { os: 'x' } } }, 200],
    [{ 'os-reset_status': { status: 'error' } }, 403],
    [{ 'os-extend': { new_size: 0 } }, 400],
    [{ 'os-retype': { new_type: 'x' } }, 501],
    [{ 'os-volume_upload_image': { image_name: 'i', disk_format: 'qcow2' } }, 400],
    [{ dance: null }, 400],
    [{}, 400],
  ] as const) {
    assert.equal((await act(json)).status, status, JSON.stringify(json))
    await world.idle()
  }
  assert.equal((await act({ 'os-reset_status': { status: 'creating' } }, 'ops:admin')).status, 400)
  const { volume } = (await ask(`GET /volumes/${id}`)).json
  assert.deepEqual(
    [volume.size, volume.bootable, volume.metadata, volume.volume_image_metadata],
    [2, 'true', { readonly: 'True' }, { os: 'x' }],
  )
  for (const path of [`/volumes/${id}/metadata`]) {
    assert.deepEqual((await ask(`POST ${path}`, { json: { metadata: { a: '1', b: '2' } } })).json, {
      metadata: { a: '1', b: '2' },
    })
    assert.deepEqual((await ask(`PUT ${path}/b`, { json: { meta: { b: '3' } } })).json, { meta: { b: '3' } })
    assert.deepEqual((await ask(`GET ${path}/b`)).json, { meta: { b: '3' } })
    assert.equal((await ask(`PUT ${path}/c`, { json: { meta: { b: '3' } } })).status, 400)
    assert.equal((await ask(`DELETE ${path}/a`)).status, 200)
    assert.equal((await ask(`DELETE ${path}/a`)).status, 404)
    assert.deepEqual((await ask(`PUT ${path}`, { json: { metadata: { z: '' } } })).json, { metadata: { z: '' } })
  }
  assert.equal(
    (await ask(`PUT /volumes/${id}`, { json: { volume: { name: ' new ', description: null } } })).json.volume.name,
    'new',
  )
  assert.equal((await ask(`DELETE /volumes/${id}`)).status, 202)
  await world.idle()
  assert.equal((await ask(`GET /volumes/${id}`)).status, 404)
})

test('snapshots are made, shown, changed and deleted; of a volume in use by force, or from 3.66 on', async () => {
  const id = await make()
  const made = await ask('POST /snapshots', { json: { snapshot: { volume_id: id, name: 's', metadata: { a: 'b' } } } })
  assert.deepEqual([made.status, made.json.snapshot.status, made.json.snapshot.volume_id], [202, 'creating', id])
  await world.idle()
  const path = `/snapshots/${made.json.snapshot.id}`
  const { snapshot } = (await ask(`GET ${path}`, { version: '3.41' })).json
  assert.deepEqual(
    [snapshot.status, snapshot.size, snapshot.user_id, snapshot['os-extended-snapshot-attributes:progress']],
    ['available', 1, 'user-of-mine', '100%'],
  )
  assert.equal((await ask(`PUT ${path}`, { json: { snapshot: { name: 't' } } })).json.snapshot.name, 't')
  assert.deepEqual((await ask(`POST ${path}/metadata`, { json: { metadata: { c: 'd' } } })).json, {
    metadata: { a: 'b', c: 'd' },
  })
  assert.equal((await ask(`GET /snapshots/detail?volume_id=${id}`)).json.snapshots.length, 1)
  assert.equal((await ask('GET /snapshots?volume_id=none')).json.snapshots.length, 0)
  const refused = await ask(`DELETE /volumes/${id}`)
  assert.match(refused.json.badRequest.message, /still has 1 dependent snapshots/)
  const old = { snapshot: { volume_id: id, force: false } }
  assert.equal((await ask('POST /snapshots', { json: old, version: '3.66' })).status, 400)
  assert.equal((await ask(`DELETE ${path}`)).status, 202)
  await world.idle()
  assert.equal((await ask(`GET ${path}`)).json.itemNotFound.code, 404)
  assert.equal((await ask(`DELETE /volumes/${id}?cascade=true`)).status, 202)
  await world.idle()
})

const volume = (more: object) => ({ volume: { size: 1, ...more } })
const refused: readonly [object, RegExp][] = [
  [{}, /'volume' is a required property/],
  [{ volume: {} }, /needs its size/],
  [volume({ size: 0 }), /field\/attribute size/],
  [volume({ size: 1.5 }), /field\/attribute size/],
  [volume({ size: 5000 }), /at most 1024 GiB/],
  [volume({ name: 'x'.repeat(256) }), /field\/attribute name/],
  [volume({ metadata: { a: 1 } }), /field\/attribute metadata.*texts of at most 255/],
  [volume({ imageRef: 'none' }), /Invalid image identifier/],
  [volume({ imageRef: 'a', snapshot_id: 'b' }), /one of imageRef, snapshot_id and source_volid/],
  [volume({ volume_type: 'fast' }), /none but "imprint"/],
  [volume({ availability_zone: 'moon' }), /none but "nova"/],
  [volume({ multiattach: true }), /one instance at a time/],
  [volume({ backup_id: 'b' }), /no backups/],
  [volume({ group_id: 'b' }), /groups/],
]
for (const [json, says] of refused) {
  test(`no volume is made from ${JSON.stringify(json).slice(0, 90)}`, async () => {
    const reply = await ask('POST /volumes', { json })
    assert.equal(reply.status, 400)
    assert.match(reply.json.badRequest.message, says)
  })
}

test('what a volume is to be made from and is not there, is not found; quota and roles have their own statuses', async () => {
  for (const source of ['snapshot_id', 'source_volid']) {
    assert.equal((await ask('POST /volumes', { json: volume({ [source]: '00000000-0000-0000-0000-000000000000' }) })).status, 404)
  }
  assert.equal((await ask('POST /volumes', { json: volume({}), as: 'mine:reader' })).json.forbidden.code, 403)
  assert.equal((await ask('GET /volumes', { as: null })).json.unauthorized.code, 401)
  const method = await ask('PATCH /volumes', { json: {} })
  assert.deepEqual([method.status, method.json.badMethod.code], [405, 405])
  for (let n = 0; n < 30; n += 1) await ask('POST /volumes', { json: volume({}), as: 'many:member' })
  const full = await ask('POST /volumes', { json: volume({}), as: 'many:member' })
  assert.equal(full.status, 413)
  assert.match(full.json.overLimit.message, /^VolumeLimitExceeded/)
})

test('types, limits, quotas, zones and services are where clients look for them', async () => {
  const { volume_types: types } = (await ask('GET /types')).json
  assert.deepEqual([types.length, types[0].name, 'extra_specs' in types[0]], [1, 'imprint', false])
  assert.equal((await ask(`GET /types/${types[0].id}`)).json.volume_type.name, 'imprint')
  assert.equal((await ask('GET /types/default')).json.volume_type.id, types[0].id)
  assert.equal((await ask('GET /types/other')).status, 404)
  const { absolute } = (await ask('GET /limits', { as: 'many:member' })).json.limits
  assert.deepEqual([absolute.maxTotalVolumes, absolute.totalVolumesUsed, absolute.totalGigabytesUsed], [30, 30, 30])
  const { quota_set: quota } = (await ask('GET /os-quota-sets/many?usage=true', { as: 'many:member' })).json
  assert.deepEqual([quota.volumes, quota.gigabytes_imprint.in_use], [{ limit: 30, in_use: 30, reserved: 0 }, 30])
  assert.equal((await ask('GET /os-quota-sets/many', { as: 'mine:member' })).status, 403)
  assert.equal((await ask('GET /os-availability-zone')).json.availabilityZoneInfo[0].zoneName, 'nova')
  assert.equal((await ask('GET /os-services')).status, 403)
  assert.equal((await ask('GET /os-services?binary=cinder-volume', { as: 'ops:admin' })).json.services[0].state, 'up')
  assert.deepEqual((await ask('GET /attachments', { version: '3.27' })).json, { attachments: [] })
  assert.equal((await ask('GET /attachments/none', { version: '3.27' })).status, 404)
})
