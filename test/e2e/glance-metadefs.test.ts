/** Every subcommand of the `glance` client about metadata definitions. */
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { clientSession } from './client-session.ts'
import { startServiceUnderTest } from './image-service.ts'

test('glance, metadata definitions', { skip: missingTool('glance') }, async (t) => {
  const scratch = await scratchFolder('e2e')
  t.after(scratch.stop)
  const service = await startServiceUnderTest()
  t.after(service.stop)
  const { ok, table, refused } = clientSession(service.identityUrl, service.cast.admin, scratch.path)
  const member = clientSession(service.identityUrl, service.cast.member, scratch.path)
  const step = (title: string, work: () => Promise<void>) => t.test(title, work)
  const space = 'E2E::Space'
  const schema = '{"type":"string","title":"Bus"}'

  await step('a standard set is there', async () => {
    assert.ok(Object.keys(await table`glance md-namespace-list`).length > 5)
    assert.ok(Object.keys(await table`glance md-resource-type-list`).includes('OS::Glance::Image'))
  })
  await step('namespaces: create, show, update, list', async () => {
    const made = await table`glance md-namespace-create ${space} --visibility private --display-name Space --description First`
    assert.deepEqual([made.namespace, made.visibility, made.protected], [space, 'private', 'False'])
    assert.match(await refused`glance md-namespace-create ${space}`, /409/)
    const updated = await table`glance md-namespace-update ${space} --description Second --visibility private`
    assert.equal(updated.description, 'Second')
    assert.equal((await table`glance md-namespace-show ${space}`).description, 'Second')
    assert.ok((await table`glance md-namespace-list --visibility private`)[space])
  })
  await step('a private namespace is hidden from other projects', async () => {
    assert.match(await member.refused`glance md-namespace-show ${space}`, /404/)
  })
  await step('resource types: associate, list, deassociate', async () => {
    await ok`glance md-resource-type-associate ${space} --name OS::Glance::Image --prefix hw_`
    assert.match(await ok`glance md-namespace-resource-type-list ${space}`, /OS::Glance::Image/)
    assert.ok((await table`glance md-namespace-list --resource-types OS::Glance::Image --visibility private`)[space])
    await ok`glance md-resource-type-deassociate ${space} OS::Glance::Image`
    assert.match(await refused`glance md-resource-type-deassociate ${space} OS::Glance::Image`, /404/)
  })
  await step('properties: create, show, update, list, delete', async () => {
    await ok`glance md-property-create ${space} --name bus --title Bus --schema ${schema}`
    assert.match(await refused`glance md-property-create ${space} --name bus --title Bus --schema ${schema}`, /409/)
    assert.match(await ok`glance md-property-show ${space} bus`, /Bus/)
    await ok`glance md-property-update ${space} bus --title Renamed`
    assert.match(await ok`glance md-property-list ${space}`, /Renamed/)
    await ok`glance md-property-delete ${space} bus`
    assert.match(await refused`glance md-property-show ${space} bus`, /404/)
    await ok`glance md-property-create ${space} --name again --title Again --schema ${schema}`
    await ok`glance md-namespace-properties-delete ${space}`
    assert.doesNotMatch(await ok`glance md-property-list ${space}`, /Again/)
  })
  await step('objects: create, show, update, list, delete', async () => {
    const body = '{"properties":{"cores":{"type":"integer","title":"Cores"}}}'
    await ok`glance md-object-create ${space} --name cpu --schema ${body}`
    assert.match(await refused`glance md-object-create ${space} --name cpu --schema ${body}`, /409/)
    assert.match(await ok`glance md-object-show ${space} cpu`, /cores/)
    assert.match(await ok`glance md-object-property-show ${space} cpu cores`, /Cores/)
    await ok`glance md-object-update ${space} cpu --name processor`
    assert.match(await ok`glance md-object-list ${space}`, /processor/)
    await ok`glance md-object-delete ${space} processor`
    assert.match(await refused`glance md-object-show ${space} processor`, /404/)
    await ok`glance md-object-create ${space} --name cpu --schema ${body}`
    await ok`glance md-namespace-objects-delete ${space}`
    assert.doesNotMatch(await ok`glance md-object-list ${space}`, /cpu/)
  })
  await step('tags: create, create several, show, rename, list, delete', async () => {
    await ok`glance md-tag-create ${space} --name one`
    assert.match(await refused`glance md-tag-create ${space} --name one`, /409/)
    assert.match(await ok`glance md-tag-show ${space} one`, /one/)
    await ok`glance md-tag-update ${space} one --name uno`
    await ok`glance md-tag-create-multiple ${space} --names two,three --delim ,`
    const tags = await ok`glance md-tag-list ${space}`
    for (const name of ['two', 'three']) assert.ok(tags.includes(name), name)
    assert.doesNotMatch(tags, /uno/) // they take the place of all that were there
    await ok`glance md-tag-delete ${space} two`
    assert.match(await refused`glance md-tag-show ${space} two`, /404/)
    await ok`glance md-namespace-tags-delete ${space}`
    assert.doesNotMatch(await ok`glance md-tag-list ${space}`, /three/)
  })
  await step('a namespace is imported whole from a file, and protected from deletion', async () => {
    const file = join(scratch.path, 'namespace.json')
    const body = {
      namespace: 'E2E::Imported',
      display_name: 'Imported',
      visibility: 'public',
      protected: true,
      resource_type_associations: [{ name: 'OS::Glance::Image' }],
      properties: { colour: { title: 'Colour', type: 'string' } },
      objects: [{ name: 'thing', properties: { weight: { title: 'Weight', type: 'integer' } } }],
      tags: [{ name: 'heavy' }],
    }
    await writeFile(file, JSON.stringify(body))
    await ok`glance md-namespace-import --file ${file}`
    const shown = await ok`glance md-namespace-show E2E::Imported`
    for (const word of ['colour', 'thing', 'heavy']) assert.ok(shown.includes(word), word)
    assert.match(await member.ok`glance md-namespace-show E2E::Imported`, /colour/)
    assert.match(await refused`glance md-namespace-delete E2E::Imported`, /403/)
    await ok`glance md-namespace-update E2E::Imported --protected False --visibility public`
    await ok`glance md-namespace-delete E2E::Imported`
  })
  await step('md-namespace-delete deletes, once', async () => {
    await ok`glance md-namespace-delete ${space}`
    assert.match(await refused`glance md-namespace-delete ${space}`, /404/)
  })
})
