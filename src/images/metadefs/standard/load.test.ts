import assert from 'node:assert/strict'
import { test } from 'node:test'
import { serviceCaller } from '../../../base/caller.ts'
import { SqliteCatalog } from '../../../store/catalog/sqlite/sqlite-catalog.ts'
import { listResourceTypes } from '../associations.ts'
import { deleteNamespace, listNamespaces, showNamespace, updateNamespace } from '../namespaces.ts'
import { loadStandardMetadefs, standardNamespaces } from './load.ts'

const admin = serviceCaller('req-test')
const everything = { limit: 1000, sortKey: 'namespace', direction: 'asc' } as const
const open = async (t: { after(work: () => Promise<void>): void }) => {
  const catalog = await SqliteCatalog.open({ path: ':memory:' })
  t.after(() => catalog.close())
  return { catalog }
}

test('the standard set is loaded at the first start, and not again', async (t) => {
  const ports = await open(t)
  assert.equal(await loadStandardMetadefs(ports), standardNamespaces.length)
  assert.equal(await loadStandardMetadefs(ports), 0)
  const namespaces = await listNamespaces(ports, { ...admin, isAdmin: false, roles: new Set(['reader']) }, everything)
  assert.equal(namespaces.length, standardNamespaces.length)
  assert.ok(namespaces.every(({ visibility, protected: guarded }) => visibility === 'public' && guarded))
  const types = (await listResourceTypes(ports)).map(({ name }) => name)
  for (const name of ['OS::Glance::Image', 'OS::Nova::Flavor', 'OS::Cinder::Volume']) assert.ok(types.includes(name))
})

test('what an administrator deleted stays away, and what one changed stays as it is', async (t) => {
  const ports = await open(t)
  await loadStandardMetadefs(ports)
  await updateNamespace(ports, admin, 'Imprint::Disk', { namespace: 'Imprint::Disk', visibility: 'public', display_name: 'Ours' })
  await deleteNamespace(ports, admin, 'Imprint::Disk').then(() => undefined)
  await updateNamespace(ports, admin, 'imprint::network', { namespace: 'Imprint::Network', display_name: 'Ours' })
  assert.equal(await loadStandardMetadefs(ports), 0)
  await assert.rejects(showNamespace(ports, admin, 'Imprint::Disk'), { code: 'not-found' })
  assert.equal((await showNamespace(ports, admin, 'Imprint::Network')).displayName, 'Ours')
})

test('properties of one kind of resource are defined once', () => {
  const defined = new Map<string, string>()
  for (const { namespace, properties = {}, resource_type_associations: associations } of standardNamespaces) {
    const image = associations.find(({ name }) => name === 'OS::Glance::Image')
    for (const name of image ? Object.keys(properties) : []) {
      const full = `${image?.prefix ?? ''}${name}`
      assert.equal(defined.get(full), undefined, `${full} stands in ${defined.get(full)} and in ${namespace}`)
      defined.set(full, namespace)
    }
  }
  for (const name of [
    'hw_disk_bus',
    'hw_vif_model',
    'hw_firmware_type',
    'hw_machine_type',
    'architecture',
    'os_distro',
    'hw_tpm_model',
  ]) {
    assert.ok(defined.has(name), name)
  }
})
