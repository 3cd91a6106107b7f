/** Every subcommand of the `glance` client about images, members, imports, tasks, stores and the cache. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { askUntil, clientSession } from './client-session.ts'
import { makeQcow2Image, makeRawImage, serveFiles } from './disk-images.ts'
import { startServiceUnderTest } from './image-service.ts'

test('glance, images', { skip: missingTool('glance', 'qemu-img') }, async (t) => {
  const scratch = await scratchFolder('e2e')
  t.after(scratch.stop)
  const raw = await makeRawImage(scratch.path)
  const qcow2 = await makeQcow2Image(scratch.path)
  const files = await serveFiles([raw, qcow2])
  t.after(files.stop)
  const settings = { IMPRINT_IMPORT_HOSTS: '127.0.0.1', IMPRINT_IMPORT_PORTS: String(files.port) }
  const service = await startServiceUnderTest({ settings })
  t.after(service.stop)
  const { ok, table, refused } = clientSession(service.identityUrl, service.cast.admin, scratch.path)
  const alt = clientSession(service.identityUrl, service.cast.other, scratch.path)
  const other = service.cast.other.projectId
  const show = (id: string) => table`glance image-show ${id}`
  const becomes = async (id: string, status: string) => {
    const shown = await askUntil(
      (answer) => answer.status === status,
      () => show(id),
    )
    assert.equal(shown.status, status)
    return shown
  }
  const step = (title: string, work: () => Promise<void>) => t.test(title, work)
  let id = ''
  let staged = ''

  await step('explain image describes the schema', async () => {
    const properties = await table`glance explain image`
    assert.ok(properties.visibility && properties.os_hash_value)
  })
  await step('image-create without data makes a queued image', async () => {
    const made =
      await table`glance image-create --name g-image --disk-format raw --container-format bare --property p1=v1 --tags red`
    id = made.id!
    assert.deepEqual([made.status, made.p1, made.visibility], ['queued', 'v1', 'shared'])
  })
  await step('image-upload gives it bytes, once', async () => {
    await ok`glance image-upload --file ${raw} ${id}`
    const shown = await becomes(id, 'active')
    assert.equal(shown.size, '3000000')
    assert.match(await refused`glance image-upload --file ${raw} ${id}`, /409/)
  })
  await step('image-create --file does both', async () => {
    const made = await table`glance image-create --name g-qcow2 --disk-format qcow2 --container-format bare --file ${qcow2}`
    assert.equal(made.status, 'active')
    await ok`glance image-delete ${made.id!}`
  })
  await step('image-download verifies and writes the same bytes', async () => {
    const path = join(scratch.path, 'down')
    await ok`glance image-download --file ${path} ${id}`
    assert.ok((await readFile(path)).equals(await readFile(raw)))
  })
  await step('image-update changes, adds and removes', async () => {
    const shown = await table`glance image-update --name g-renamed --property p2=v2 --remove-property p1 --min-ram 64 ${id}`
    assert.deepEqual([shown.name, shown.p2, shown.p1, shown.min_ram], ['g-renamed', 'v2', undefined, '64'])
  })
  await step('image-list filters, sorts and pages', async () => {
    assert.ok((await table`glance image-list --limit 5`)[id])
    assert.deepEqual(Object.keys(await table`glance image-list --property-filter p2=v2 --sort name:asc`), [id])
    assert.deepEqual(Object.keys(await table`glance image-list --tag red --sort-key name --sort-dir desc --page-size 1`), [id])
    assert.deepEqual(Object.keys(await table`glance image-list --visibility private --tag red`), [])
    const { os_hash_value: hash, checksum } = await show(id)
    assert.ok((await table`glance image-list --hash ${hash!}`)[id])
    assert.ok((await table`glance image-list --checksum ${checksum!}`)[id])
    assert.deepEqual(Object.keys(await table`glance image-list --hidden True --tag red`), [])
    assert.ok((await table`glance image-list --owner ${service.cast.admin.projectId} --include-stores`)[id])
  })
  await step('tags come and go', async () => {
    await ok`glance image-tag-update ${id} blue`
    assert.match((await show(id)).tags!, /blue/)
    await ok`glance image-tag-delete ${id} blue`
    assert.match(await refused`glance image-tag-delete ${id} blue`, /404/)
  })
  await step('image-deactivate and image-reactivate', async () => {
    await ok`glance image-deactivate ${id}`
    assert.equal((await show(id)).status, 'deactivated')
    await ok`glance image-reactivate ${id}`
    assert.equal((await show(id)).status, 'active')
  })
  await step('members: create, get, list, update, delete', async () => {
    await ok`glance member-create ${id} ${other}`
    assert.match(await ok`glance member-get ${id} ${other}`, /pending/)
    assert.match(await alt.ok`glance member-update ${id} ${other} accepted`, /accepted/)
    assert.match(await ok`glance member-list --image-id ${id}`, /accepted/)
    assert.match(await alt.refused`glance member-update ${id} ${other} maybe`, /400|invalid choice/)
    assert.ok((await alt.table`glance image-list --member-status accepted`)[id])
    await ok`glance member-delete ${id} ${other}`
    assert.match(await alt.refused`glance image-show ${id}`, /404/)
  })
  await step('import-info and stores-info name what there is', async () => {
    const methods = (await table`glance import-info`)['import-methods'] ?? ''
    for (const method of ['glance-direct', 'web-download']) assert.ok(methods.includes(method), method)
    assert.match(await ok`glance stores-info`, /id/)
    assert.match(await ok`glance stores-info --detail`, /id/)
  })
  await step('image-stage, then image-import by glance-direct', async () => {
    const made = await table`glance image-create --name g-staged --disk-format raw --container-format bare`
    staged = made.id!
    await ok`glance image-stage --file ${raw} ${staged}`
    assert.equal((await show(staged)).status, 'uploading')
    await ok`glance image-import --import-method glance-direct ${staged}`
    const shown = await becomes(staged, 'active')
    assert.equal(shown.size, '3000000')
  })
  await step('image-tasks lists the import', async () => {
    assert.match(await ok`glance image-tasks ${staged}`, /success/)
  })
  await step('image-create-via-import by glance-direct', async () => {
    const made = await table`glance image-create-via-import --import-method glance-direct --name g-direct --disk-format raw
      --container-format bare --file ${raw}`
    await becomes(made.id!, 'active')
    await ok`glance image-delete ${made.id!}`
  })
  await step('image-create-via-import by web-download fetches and keeps the bytes', async () => {
    const made = await table`glance image-create-via-import --import-method web-download --name g-web --disk-format raw
      --container-format bare --uri ${files.urlOf(raw)}`
    await becomes(made.id!, 'active')
    const path = join(scratch.path, 'fetched')
    await ok`glance image-download --file ${path} ${made.id!}`
    assert.ok((await readFile(path)).equals(await readFile(raw)))
    await ok`glance image-delete ${made.id!}`
  })
  await step('web-download of an address that is not allowed is refused', async () => {
    const made = await table`glance image-create --name g-evil --disk-format raw --container-format bare`
    await refused`glance image-import --import-method web-download --uri http://169.254.169.254/latest ${made.id!}`
    await refused`glance image-import --import-method web-download --uri file:///etc/passwd ${made.id!}`
    await ok`glance image-delete ${made.id!}`
  })
  await step('an unknown import method and one in the wrong state are refused', async () => {
    await refused`glance image-import --import-method by-pigeon ${id}`
    await refused`glance image-import --import-method glance-direct ${id}`
  })
  await step('usage shows each limit', async () => {
    await ok`glance usage`
  })
  await step('tasks are listed', async () => {
    await ok`glance task-list`
    await ok`glance task-list --status success --type import --sort-key id --sort-dir asc`
    assert.match(await refused`glance task-show 11111111-2222-4333-8444-555555555555`, /404/)
  })
  await step('the last copy of an image cannot leave its store', async () => {
    const store = await firstStore()
    await refused`glance stores-delete --store ${store} ${id}`
    await refused`glance stores-delete --store no-such-store ${id}`
  })
  await step('locations are not shown, and not to be changed', async () => {
    await refused`glance location-add --url http://127.0.0.1/x ${id}`
    await refused`glance location-delete --url http://127.0.0.1/x ${id}`
    await refused`glance location-update --url http://127.0.0.1/x --metadata {} ${id}`
  })
  await step('image-delete deletes, once', async () => {
    await ok`glance image-delete ${id} ${staged}`
    assert.match(await refused`glance image-delete ${id}`, /No image|404|not/i)
    assert.match(await refused`glance image-show ${id}`, /404/)
  })

  async function firstStore(): Promise<string> {
    const headers = { 'x-auth-token': service.cast.admin.token }
    const response = await fetch(`${service.imageUrl}/v2/info/stores`, { headers })
    const { stores } = (await response.json()) as { stores: { id: string }[] }
    return stores[0]!.id
  }
})
