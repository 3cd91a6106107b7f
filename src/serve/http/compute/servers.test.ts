import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { computeServer } from './compute-server.suite.ts'

const { ask, boot, world, close } = await computeServer({ quota: { instances: 60, cores: -1, ram: -1 } })
after(close)
const newServer = (more: object = {}) => ({ server: { name: 'web', imageRef: world.image, flavorRef: '1', ...more } })
const NOBODY = '00000000-0000-4000-8000-000000000000'
const status = async (id: string) => {
  await world.idle()
  return (await ask(`GET /servers/${id}`)).json.server?.status
}
const act = async (id: string, action: object, as = 'mine:member', version = '2.1') =>
  (await ask(`POST /servers/${id}/action`, { json: action, as, version })).status

test('the versions are told to anybody, and a version that is not spoken is refused as Nova refuses it', async () => {
  const { status, json } = await ask('GET ^/compute/', { as: null })
  assert.equal(status, 200)
  assert.deepEqual(json.versions[0].links, [{ rel: 'self', href: 'http://localhost:80/compute/v2.1/' }])
  const { version } = (await ask('GET ', { as: null })).json
  assert.deepEqual([version.id, version.min_version, version.version, version.status], ['v2.1', '2.1', '2.79', 'CURRENT'])
  for (const [headers, answer, spoken] of [
    [{}, 200, '2.1'],
    [{ 'openstack-api-version': 'volume 3.5, compute 2.47' }, 200, '2.47'],
    [{ 'x-openstack-nova-api-version': '2.10' }, 200, '2.10'],
    [{ 'openstack-api-version': 'compute latest' }, 200, '2.79'],
    [{ 'openstack-api-version': 'compute 2.80' }, 406, '2.1'],
    [{ 'openstack-api-version': 'compute 3.1' }, 406, '2.1'],
    [{ 'x-openstack-nova-api-version': 'two' }, 400, '2.1'],
  ] as const) {
    const reply = await ask('GET /servers', { headers })
    assert.equal(reply.status, answer, JSON.stringify(headers))
    assert.equal(reply.headers['openstack-api-version'], `compute ${spoken}`)
    assert.match(String(reply.headers.vary), /OpenStack-API-Version/)
    if (answer === 406) assert.match(reply.json.computeFault.message, /^Version .* Minimum is 2.1 and maximum is 2.79\.$/)
    if (answer === 400) assert.match(reply.json.badRequest.message, /^API Version String two is of invalid format/)
  }
})

test('a server is made, shown, renamed and deleted', async () => {
  const user_data = Buffer.from('#!/bin/sh\n').toString('base64')
  const made = await ask('POST /servers', { json: newServer({ metadata: { role: 'web' }, user_data, key_name: null }) })
  assert.equal(made.status, 202)
  const { id, links } = made.json.server
  assert.equal(made.headers.location, `http://localhost:80/compute/v2.1/servers/${id}`)
  assert.deepEqual(
    links.map(({ rel }: { rel: string }) => rel),
    ['self', 'bookmark'],
  )
  await world.idle()
  const { server } = (await ask(`GET /servers/${id}`)).json
  assert.deepEqual(
    [server.status, server['OS-EXT-STS:vm_state'], server['OS-EXT-STS:task_state'], server['OS-EXT-STS:power_state']],
    ['ACTIVE', 'active', null, 1],
  )
  assert.deepEqual([server.image.id, server.flavor.id, server.metadata], [world.image, '1', { role: 'web' }])
  assert.equal(server.addresses.user[0].addr, '10.0.2.15')
  assert.match(server.created, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  for (const absent of ['locked', 'tags', 'description', 'OS-EXT-SRV-ATTR:host']) assert.ok(!(absent in server), absent)
  const renamed = await ask(`PUT /servers/${id}`, {
    json: { server: { name: 'db', accessIPv4: '192.0.2.1', accessIPv6: '0:0::BABE:220.12.22.2' } },
  })
  const { name, accessIPv4, accessIPv6 } = renamed.json.server
  assert.deepEqual([name, accessIPv4, accessIPv6], ['db', '192.0.2.1', '::babe:dc0c:1602'])
  assert.ok(!('OS-EXT-STS:vm_state' in renamed.json.server), 'as Nova had it until 2.75')
  assert.equal((await ask(`DELETE /servers/${id}`)).status, 204)
  await world.idle()
  const gone = await ask(`GET /servers/${id}`)
  assert.equal(gone.status, 404)
  assert.deepEqual(gone.json, { itemNotFound: { code: 404, message: `Instance ${id} could not be found.` } })
})

test('later versions say more, and administrators see the host', async () => {
  const id = await boot({ tags: ['a'], description: 'words', networks: 'auto' }, { version: '2.79' })
  await act(id, { lock: { locked_reason: 'mine' } }, 'mine:member', '2.73')
  const { server } = (await ask(`GET /servers/${id}`, { version: '2.79', as: 'operators:admin' })).json
  assert.deepEqual([server.locked, server.locked_reason, server.description, server.tags], [true, 'mine', 'words', ['a']])
  assert.deepEqual([server.flavor.original_name, server.flavor.vcpus, server.flavor.swap], ['m1.tiny', 1, 0])
  assert.deepEqual([server['OS-EXT-SRV-ATTR:host'], server.host_status, server.server_groups], ['host', 'UP', []])
  assert.equal(server['OS-EXT-SRV-ATTR:launch_index'], 0)
})

test('several are made by one request, which may ask for the reservation', async () => {
  const { json } = await ask('POST /servers', {
    json: newServer({ name: 'many', min_count: 2, max_count: '3', return_reservation_id: true }),
  })
  assert.match(json.reservation_id, /^r-[0-9a-f]{8}$/)
  const { servers } = (await ask(`GET /servers/detail?reservation_id=${json.reservation_id}&sort_key=display_name&sort_dir=asc`))
    .json
  assert.deepEqual(
    servers.map(({ name }: { name: string }) => name),
    ['many-1', 'many-2', 'many-3'],
  )
})

test('what is done to a server is done, and refused where its state forbids it', async () => {
  const id = await boot()
  assert.equal(await act(id, { 'os-stop': null }), 202)
  assert.equal(await status(id), 'SHUTOFF')
  const refused = await ask(`POST /servers/${id}/action`, { json: { pause: null } })
  assert.equal(refused.status, 409)
  assert.match(refused.json.conflictingRequest.message, /^Cannot 'pause' instance .* while it is in vm_state stopped/)
  for (const [action, then] of [
    [{ 'os-start': null }, 'ACTIVE'],
    [{ reboot: { type: 'SOFT' } }, 'ACTIVE'],
    [{ reboot: { type: 'Hard' } }, 'ACTIVE'],
    [{ pause: null }, 'PAUSED'],
    [{ unpause: null }, 'ACTIVE'],
  ] as const) {
    assert.equal(await act(id, action), 202, JSON.stringify(action))
    assert.equal(await status(id), then)
  }
  assert.equal(await act(id, { lock: null }), 202)
  assert.equal(await act(id, { 'os-stop': null }), 409)
  assert.equal(await act(id, { 'os-stop': null }, 'operators:admin'), 202)
  assert.equal(await act(id, { unlock: null }), 202)
  world.host.machine(id).print('one\ntwo\n')
  const { output } = (await ask(`POST /servers/${id}/action`, { json: { 'os-getConsoleOutput': { length: '1' } } })).json
  assert.equal(output, 'two\n')
  assert.equal(await act(id, { 'os-getConsoleOutput': {} }), 200)
  assert.equal(await act(id, { forceDelete: null }), 202)
  assert.equal(await status(id), undefined)
})

test('an action that is not served says so; one that there is not, is no request', async () => {
  const id = await boot()
  const resize = await ask(`POST /servers/${id}/action`, { json: { resize: { flavorRef: '2' } } })
  assert.equal(resize.status, 501)
  assert.match(resize.json.notImplemented.message, /"resize" is not served here/)
  for (const [json, says] of [
    [{ dance: null }, /no such action: dance/],
    [{ pause: null, unpause: null }, /no such action/],
    [{}, /no such action: none/],
    [[], /no such action/],
    [{ reboot: { type: 'WARM' } }, /field\/attribute type. Value: "WARM"/],
    [{ reboot: {} }, /'type' is a required property/],
    [{ lock: { locked_reason: 1 } }, /lock/],
  ] as const) {
    const { status, json: body } = await ask(`POST /servers/${id}/action`, { json, version: '2.79' })
    assert.equal(status, 400, JSON.stringify(json))
    assert.match(body.badRequest.message, says)
  }
})

const refused: readonly [object | string, RegExp, string?][] = [
  [{}, /'server' is a required property/],
  ['{"server"', /malformed request body/],
  ['{"server":{"__proto__":1}}', /malformed request body/],
  ['[]', /object/],
  [`${'{"a":'.repeat(40)}1${'}'.repeat(40)}`, /deeper than/],
  ['{"server":{"name":"\\ud800"}}', /surrogate/],
  [newServer({ name: '' }), /field\/attribute name\. Value: ""/],
  [newServer({ name: ' padded' }), /field\/attribute name/],
  [newServer({ name: 'a\nb' }), /field\/attribute name/],
  [newServer({ name: 'x'.repeat(256) }), /field\/attribute name/],
  [newServer({ flavorRef: null }), /field\/attribute flavorRef/],
  [newServer({ flavorRef: '99' }), /Flavor 99 could not be found/],
  [newServer({ imageRef: '' }), /Invalid imageRef/],
  [newServer({ imageRef: 'none' }), /no image/],
  [newServer({ metadata: { a: 1 } }), /field\/attribute a\b/],
  [newServer({ metadata: { 'a/b': '1' } }), /Additional properties are not allowed \('a\/b'/],
  [newServer({ surprise: 1 }), /Additional properties are not allowed \('surprise' was unexpected\)/],
  [newServer({ description: 'x' }), /'description' was unexpected/],
  [newServer({ min_count: 3, max_count: 2 }), /min_count must be <= max_count/],
  [newServer({ min_count: '0' }), /minimum of 1/],
  [newServer({ user_data: 'no base64!' }), /base 64/],
  [newServer({ networks: [{ uuid: 'x' }] }), /no network service/],
  [newServer(), /'networks' is a required property/, '2.37'],
  [newServer({ key_name: 'none' }), /Invalid key_name/],
  [newServer({ personality: [{ path: '/a', contents: '' }] }), /files are not injected/],
  [newServer({ personality: [], networks: 'auto' }), /'personality' was unexpected/, '2.57'],
  [newServer({ security_groups: [{ name: 'web' }] }), /none but "default"/],
  [newServer({ availability_zone: 'moon' }), /availability zone/],
  [newServer({ block_device_mapping_v2: [{ source_type: 'volume', uuid: 'x', boot_index: 0 }] }), /one disk, and 2 are named/],
  [newServer({ block_device_mapping_v2: [{ source_type: 'volume', uuid: 'x' }] }), /Volume x could not be found/],
  [newServer({ block_device_mapping_v2: [{ source_type: 'blank', destination_type: 'local' }] }), /one local disk/],
  [newServer({ block_device_mapping_v2: [{ source_type: 'blank', destination_type: 'volume' }] }), /needs volume_size/],
  [
    newServer({ block_device_mapping_v2: [{ source_type: 'tape', destination_type: 'volume', uuid: 'x' }] }),
    /one of volume, image/,
  ],
  [newServer({ block_device_mapping_v2: [{ shape: 'round' }] }), /'shape' was unexpected/],
  [newServer({ block_device_mapping: [{ volume_id: 'x' }] }), /block_device_mapping_v2/],
  [newServer({ accessIPv4: '::1' }), /accessIPv4/],
  [newServer({ accessIPv6: 'fe80::1%eth0' }), /accessIPv6/],
  [newServer({ config_drive: true }), /config_drive.*NoCloud/],
  [{ ...newServer(), 'os:scheduler_hints': { group: NOBODY } }, /Instance group .* could not be found/],
  [{ ...newServer(), 'OS-SCH-HNT:scheduler_hints': { same_host: [NOBODY] } }, /^No valid host was found/],
  [{ ...newServer(), 'os:scheduler_hints': { same_host: 'x' } }, /field\/attribute same_host.*a UUID/],
  [{ ...newServer(), 'os:scheduler_hints': { query: '[">=", "$free_ram_mb", 1]' } }, /scheduler hint "query"/],
]
for (const [body, says, version] of refused) {
  test(`no server is made from ${JSON.stringify(body).slice(0, 90)}`, async () => {
    const sent = typeof body === 'string' ? { text: body } : { json: body }
    const { status, json } = await ask('POST /servers', { ...sent, ...(version ? { version } : {}) })
    assert.equal(status, 400)
    assert.equal(json.badRequest.code, 400)
    assert.match(json.badRequest.message, says)
  })
}

test('an image may be named as the one local disk, as some clients do', async () => {
  const device = {
    uuid: world.image,
    boot_index: 0,
    source_type: 'image',
    destination_type: 'local',
    delete_on_termination: true,
  }
  await boot({ block_device_mapping_v2: [device] })
  await boot({ imageRef: undefined, block_device_mapping_v2: [device] })
})

test('quota, roles, tokens, methods and media types are refused in the form that clients know', async () => {
  const quota = await ask('POST /servers', { json: newServer({ min_count: 61, max_count: 61 }) })
  assert.equal(quota.status, 403)
  assert.match(quota.json.forbidden.message, /^Quota exceeded for instances: Requested 61, but already used/)
  const reader = await ask('POST /servers', { json: newServer(), as: 'mine:reader' })
  assert.deepEqual([reader.status, reader.json.forbidden.code], [403, 403])
  const stranger = await ask('GET /servers', { as: null })
  assert.deepEqual([stranger.status, stranger.json.unauthorized.code], [401, 401])
  assert.match(String(stranger.headers['www-authenticate']), /^Keystone uri=/)
  const method = await ask('PUT /servers', { json: {} })
  assert.deepEqual([method.status, method.headers.allow, method.json.badMethod.code], [405, 'GET, POST, HEAD', 405])
  const media = await ask('POST /servers', { text: '<server/>', headers: { 'content-type': 'application/xml' } })
  assert.deepEqual([media.status, media.json.badMediaType.code], [415, 415])
  const path = await ask('GET /os-fping')
  assert.deepEqual([path.status, path.json.itemNotFound.code], [404, 404])
  assert.equal((await ask('GET /servers/x/tags')).status, 404)
})

test('lists are filtered, sorted and paged', async () => {
  const as = 'listing:member'
  const ids: string[] = []
  for (const name of ['web-1', 'web-22', 'db.1']) ids.push(await boot({ name, metadata: {} }, { as }))
  await act(ids[1]!, { 'os-stop': null }, as)
  await world.idle()
  const names = async (query: string, version = '2.1', who = as) => {
    const { status, json } = await ask(`GET /servers?${query}`, { as: who, version })
    return status === 200 ? json.servers.map(({ name }: { name: string }) => name) : status
  }
  assert.deepEqual(await names(''), ['db.1', 'web-22', 'web-1'])
  assert.deepEqual(await names('sort_key=display_name&sort_dir=asc'), ['db.1', 'web-1', 'web-22'])
  assert.deepEqual(await names('name=web'), ['web-22', 'web-1'])
  assert.deepEqual(await names(`name=${encodeURIComponent('^web-[0-9]$')}`), ['web-1'])
  assert.deepEqual(await names('name=%28'), 400)
  assert.deepEqual(await names('status=shutoff'), ['web-22'])
  assert.deepEqual(await names('status=SHUTOFF&status=ACTIVE&sort_key=uuid&limit=9').then((all: string[]) => all.length), 3)
  assert.deepEqual(await names('status=sleeping'), [])
  assert.deepEqual(await names('status=sleeping', '2.38'), 400)
  assert.deepEqual(await names(`image=${world.image}&flavor=1&ip=10.0.2`).then((all: string[]) => all.length), 3)
  assert.deepEqual(await names('flavor=2'), [])
  assert.deepEqual(await names('changes-since=2100-01-01T00:00:00Z'), [])
  assert.deepEqual(await names('changes-since=yesterday'), 400)
  assert.deepEqual(await names('unknown=1').then((all: string[]) => all.length), 3)
  assert.deepEqual(await names('unknown=1', '2.75'), 400)
  assert.deepEqual(await names('vm_state=stopped').then((all: string[]) => all.length), 3, 'left alone: for administrators')
  assert.deepEqual(await names('vm_state=stopped&all_tenants=1&project_id=listing', '2.1', 'operators:admin'), ['web-22'])
  assert.deepEqual(await names('all_tenants=1'), 403)
  assert.deepEqual(await names('all_tenants=0').then((all: string[]) => all.length), 3)
  assert.deepEqual(await names('limit=0'), [])
  for (const wrong of ['limit=-1', 'limit=x', 'marker=none', 'sort_key=secret', 'sort_key=uuid&sort_dir=up']) {
    assert.equal(await names(wrong), 400, wrong)
  }
  const first = await ask('GET /servers/detail?limit=2&sort_key=created_at&sort_dir=asc', { as })
  assert.deepEqual(
    first.json.servers.map(({ id }: { id: string }) => id),
    ids.slice(0, 2),
  )
  const [next] = first.json.servers_links
  const second = await ask(`GET ${next.href.slice('http://localhost:80/compute/v2.1'.length)}`, { as })
  assert.deepEqual(
    second.json.servers.map(({ id }: { id: string }) => id),
    ids.slice(2),
  )
  assert.equal(second.json.servers_links, undefined)
})

test('metadata and tags are read, replaced and removed one by one', async () => {
  const id = await boot({ metadata: { a: '1', b: '2' } })
  const meta = async (line: string, json?: object) =>
    ask(line.replace('#', `/servers/${id}/metadata`), { ...(json ? { json } : {}) })
  assert.deepEqual((await meta('GET #')).json, { metadata: { a: '1', b: '2' } })
  assert.deepEqual((await meta('POST #', { metadata: { c: '3' } })).json, { metadata: { a: '1', b: '2', c: '3' } })
  assert.deepEqual((await meta('PUT #', { metadata: { d: '4' } })).json, { metadata: { d: '4' } })
  assert.deepEqual((await meta('PUT #/d', { meta: { d: '5' } })).json, { meta: { d: '5' } })
  assert.equal((await meta('PUT #/e', { meta: { d: '5' } })).status, 400)
  assert.deepEqual((await meta('GET #/d')).json, { meta: { d: '5' } })
  assert.equal((await meta('DELETE #/d')).status, 204)
  assert.equal((await meta('DELETE #/d')).status, 404)
  assert.equal((await meta('GET #/toString')).status, 404)
  assert.equal((await meta('POST #', { metadata: { a: 'x'.repeat(256) } })).status, 400)
  const tags = async (line: string, json?: object) =>
    ask(line.replace('#', `/servers/${id}/tags`), { version: '2.26', ...(json ? { json } : {}) })
  assert.equal((await tags('PUT #/blue')).status, 201)
  assert.equal((await tags('PUT #/blue')).status, 204)
  assert.deepEqual((await tags('PUT #', { tags: ['x', 'y', 'x'] })).json, { tags: ['x', 'y'] })
  assert.equal((await tags('GET #/x')).status, 204)
  assert.equal((await tags('GET #/z')).status, 404)
  assert.equal((await tags('DELETE #/x')).status, 204)
  assert.deepEqual((await tags('GET #')).json, { tags: ['y'] })
  const found = await ask('GET /servers?tags=y', { version: '2.26' })
  assert.deepEqual(
    found.json.servers.map((server: { id: string }) => server.id),
    [id],
  )
  assert.equal((await tags('DELETE #')).status, 204)
})

test('what instances here never have is an empty list; forwarded ports are told with the addresses', async () => {
  const id = await boot({ metadata: { 'imprint:forwards': 'tcp:8080:80' } })
  assert.deepEqual((await ask(`GET /servers/${id}/os-volume_attachments`)).json, { volumeAttachments: [] })
  assert.deepEqual((await ask(`GET /servers/${id}/os-interface`)).json, { interfaceAttachments: [] })
  const { addresses } = (await ask(`GET /servers/${id}/ips`)).json
  assert.deepEqual(
    addresses.user.map(({ addr, 'OS-EXT-IPS:type': type }: Record<string, string>) => [addr, type]),
    [
      ['10.0.2.15', 'fixed'],
      ['127.0.0.1', 'floating'],
    ],
  )
  assert.deepEqual(addresses.user[1]['imprint:forwards'], [{ protocol: 'tcp', host_port: 8080, guest_port: 80 }])
  assert.equal((await ask(`GET /servers/${id}/ips/none`)).status, 404)
  assert.equal((await ask(`GET /servers/${id}/os-interface`, { as: 'other:member' })).status, 404)
})

test('what was done to a server is listed and shown as in Nova', async () => {
  const id = await boot()
  await act(id, { pause: null })
  await world.idle()
  const listed = await ask(`GET /servers/${id}/os-instance-actions`)
  assert.deepEqual(
    listed.json.instanceActions.map(({ action, message }: { action: string; message: string }) => [action, message]),
    [
      ['pause', null],
      ['create', null],
    ],
  )
  const [pause] = listed.json.instanceActions
  assert.match(pause.start_time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/)
  assert.deepEqual([pause.instance_uuid, pause.project_id, 'updated_at' in pause], [id, 'mine', false])
  const show = async (version: string, as = 'mine:reader') =>
    (await ask(`GET /servers/${id}/os-instance-actions/${pause.request_id}`, { version, as })).json.instanceAction
  assert.equal((await show('2.50')).events, undefined)
  assert.equal((await show('2.50', 'x:admin')).events.length, 1)
  const [event] = (await show('2.62')).events
  assert.deepEqual([event.event, event.result, 'host' in event], ['compute_pause_instance', 'Success', false])
  assert.match(event.hostId, /^[0-9a-f]{56}$/)
  const page = await ask(`GET /servers/${id}/os-instance-actions?limit=1`, { version: '2.58' })
  assert.equal(page.json.instanceActions.length, 1)
  const next = new URL(page.json.links[0].href)
  assert.equal(next.searchParams.get('marker'), pause.request_id)
  const rest = await ask(`GET /servers/${id}/os-instance-actions${next.search}`, { version: '2.58' })
  assert.deepEqual([rest.json.instanceActions[0].action, 'links' in rest.json], ['create', false])
  const path = `/servers/${id}/os-instance-actions`
  assert.equal((await ask(`GET ${path}?marker=none`, { version: '2.58' })).status, 400)
  assert.equal((await ask(`GET ${path}?changes-since=2999-01-01`, { version: '2.58' })).json.instanceActions.length, 0)
  assert.equal((await ask(`GET ${path}?changes-before=2999-01-01`, { version: '2.66' })).json.instanceActions.length, 2)
  assert.equal((await ask(`GET ${path}/req-none`)).status, 404)
})

test('in a bridge no address of a server is known here, its card is told, and ports are not forwarded', async () => {
  const bridged = await computeServer({ settings: { bridge: 'br0' } })
  const [one, two] = [await bridged.boot(), await bridged.boot()]
  const cards = [one, two].map((id) => bridged.world.host.machine(id).spec.networks[0]!)
  assert.deepEqual(
    cards.map(({ bridge, forwards, isIsolated }) => [bridge, forwards, isIsolated]),
    [
      ['br0', [], false],
      ['br0', [], false],
    ],
  )
  assert.notEqual(cards[0]!.mac, cards[1]!.mac)
  assert.deepEqual((await bridged.ask(`GET /servers/${one}`)).json.server.addresses, {})
  assert.deepEqual((await bridged.ask(`GET /servers/${one}/ips`)).json, { addresses: {} })
  assert.deepEqual((await bridged.ask(`GET /servers/${one}/os-interface`)).json.interfaceAttachments, [
    { port_id: one, port_state: 'ACTIVE', net_id: 'br0', mac_addr: cards[0]!.mac, fixed_ips: [] },
  ])
  const server = { name: 'w', imageRef: bridged.world.image, flavorRef: '1', metadata: { 'imprint:forwards': 'tcp:0:22' } }
  const refused = await bridged.ask('POST /servers', { json: { server } })
  assert.equal(refused.status, 400)
  assert.match(refused.text, /in the bridge br0, where no ports are forwarded/)
  await bridged.close()
})
