/** Every subcommand of `openstack image`, and its options, as an operator would type them. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { askUntil, clientSession } from './client-session.ts'
import { makeQcow2Image, makeRawImage } from './disk-images.ts'
import { startServiceUnderTest } from './image-service.ts'

interface Shown {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly visibility: string
  readonly size: number
  readonly tags: readonly string[]
  readonly protected: boolean
  readonly min_disk: number
  readonly min_ram: number
  readonly owner: string
  readonly checksum: string
  readonly disk_format: string
  readonly properties: Readonly<Record<string, unknown>>
}
interface Listed {
  readonly ID: string
  readonly Name: string
  readonly Status: string
}

test('openstack image', { skip: missingTool('openstack', 'qemu-img') }, async (t) => {
  const scratch = await scratchFolder('e2e')
  t.after(scratch.stop)
  const service = await startServiceUnderTest()
  t.after(service.stop)
  const raw = await makeRawImage(scratch.path)
  const qcow2 = await makeQcow2Image(scratch.path)
  const other = service.cast.other.projectId
  const { ok, json, refused } = clientSession(service.identityUrl, service.cast.admin, scratch.path)
  const alt = clientSession(service.identityUrl, service.cast.other, scratch.path)
  const show = (id: string) => json<Shown>`openstack image show ${id}`
  const listed = async (listing: Promise<readonly Listed[]>) => (await listing).map((image) => image.Name)
  const step = (title: string, work: () => Promise<void>) => t.test(title, work)
  let web = ''
  let vm = ''

  await step('create --file uploads and shows an active image', async () => {
    const made = await json<Shown>`openstack image create --disk-format raw --container-format bare --file ${raw} --private
      --property os_distro=debian --property build=7 --tag golden --tag web e2e-web`
    web = made.id
    const shown = await show(web)
    assert.equal(shown.status, 'active')
    assert.equal(shown.visibility, 'private')
    assert.equal(shown.size, 3_000_000)
    assert.deepEqual([...shown.tags].sort(), ['golden', 'web'])
    assert.equal(shown.properties.os_distro, 'debian')
    assert.match(String(shown.properties.os_hash_value), /^[0-9a-f]{128}$/)
  })
  await step('create --public --min-disk --min-ram takes a qcow2', async () => {
    const made = await json<Shown>`openstack image create --disk-format qcow2 --container-format bare --file ${qcow2} --public
      --min-disk 1 --min-ram 64 --protected e2e-vm`
    vm = made.id
    const shown = await show(vm)
    assert.deepEqual([shown.disk_format, shown.min_disk, shown.min_ram, shown.protected], ['qcow2', 1, 64, true])
    assert.deepEqual([shown.visibility, shown.status], ['public', 'active'])
  })
  await step('create without a file makes a queued image, with the id it is given; an id is never used twice', async () => {
    const id = '11111111-2222-4333-8444-555555555555'
    await ok`openstack image create --id ${id} --disk-format raw --container-format bare e2e-queued`
    const shown = await show(id)
    assert.equal(shown.status, 'queued')
    await ok`openstack image set --project ${service.cast.member.project} ${id}`
    assert.equal((await show(id)).owner, service.cast.member.projectId)
    await refused`openstack image create --id ${id} --disk-format raw --container-format bare e2e-again`
    await ok`openstack image delete ${id}`
    await refused`openstack image create --id ${id} --disk-format raw --container-format bare e2e-never-again`
  })
  await step('create --import brings the bytes by staging', async () => {
    await ok`openstack image create --disk-format raw --container-format bare --file ${raw} --import e2e-imported`
    const shown = await askUntil(
      ({ status }) => status === 'active',
      () => show('e2e-imported'),
    )
    assert.equal(shown.status, 'active')
    await ok`openstack image delete ${shown.id}`
  })
  await step('create refuses a disk format that there is none of', async () => {
    await refused`openstack image create --disk-format floppy --container-format bare e2e-floppy`
  })
  await step('list shows both; --long adds columns', async () => {
    const names = await listed(json<Listed[]>`openstack image list`)
    assert.ok(names.includes('e2e-web') && names.includes('e2e-vm'))
    const long = await json<Record<string, unknown>[]>`openstack image list --long`
    const row = long.find((image) => image.Name === 'e2e-web')
    assert.equal(row?.['Disk Format'], 'raw')
    assert.equal(row?.Size, 3_000_000)
  })
  await step('list sorts', async () => {
    const ascending = await listed(json<Listed[]>`openstack image list --sort name:asc --tag golden`)
    assert.deepEqual(ascending, ['e2e-web'])
    const names = (await listed(json<Listed[]>`openstack image list --sort name:desc`)).filter((name) => name.startsWith('e2e-'))
    assert.deepEqual(names, ['e2e-web', 'e2e-vm'])
  })
  await step('list filters by name, tag, property, status, project and visibility', async () => {
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --name e2e-web`), ['e2e-web'])
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --tag golden --tag web`), ['e2e-web'])
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --tag golden --tag absent`), [])
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --property os_distro=debian`), ['e2e-web'])
    assert.ok((await listed(json<Listed[]>`openstack image list --status active`)).includes('e2e-vm'))
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --private --name e2e-vm`), [])
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --public --name e2e-vm`), ['e2e-vm'])
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --all --name e2e-vm`), ['e2e-vm'])
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --project ${service.cast.other.project} --private`), [])
  })
  await step('list goes on after a marker', async () => {
    const all = (await json<Listed[]>`openstack image list --sort name:asc`).map((image) => image.ID)
    const rest = (await json<Listed[]>`openstack image list --sort name:asc --marker ${all[0]!}`).map((image) => image.ID)
    assert.deepEqual(rest, all.slice(1))
    assert.deepEqual(
      (await json<Listed[]>`openstack image list --sort name:asc --limit 1`).map((image) => image.ID),
      all.slice(0, 1),
    )
  })
  await step('save writes the bytes that were uploaded', async () => {
    for (const [id, path] of [
      [web, raw],
      [vm, qcow2],
    ] as const) {
      const saved = join(scratch.path, 'saved')
      await ok`openstack image save --file ${saved} ${id}`
      assert.ok((await readFile(saved)).equals(await readFile(path)))
    }
  })
  await step('set changes name, properties, tags and sizes; unset takes them away', async () => {
    await ok`openstack image set --name e2e-web2 --property hw_disk_bus=virtio --tag blue --min-ram 128 --min-disk 2
      --architecture x86_64 --os-version 12 ${web}`
    const shown = await show(web)
    assert.deepEqual([shown.name, shown.min_ram, shown.min_disk], ['e2e-web2', 128, 2])
    assert.deepEqual([shown.properties.hw_disk_bus, shown.properties.architecture], ['virtio', 'x86_64'])
    assert.deepEqual([...shown.tags].sort(), ['blue', 'golden', 'web'])
    await ok`openstack image unset --property os_distro --property build --tag golden --tag web ${web}`
    const less = await show(web)
    assert.deepEqual(less.tags, ['blue'])
    assert.equal(less.properties.os_distro, undefined)
    await refused`openstack image unset --property never-there ${web}`
    await refused`openstack image unset --tag never-there ${web}`
  })
  await step('a protected image is not deleted until it is unprotected', async () => {
    await refused`openstack image delete ${vm}`
    await ok`openstack image set --unprotected ${vm}`
  })
  await step('set --deactivate forbids others the bytes; --activate gives them back', async () => {
    await ok`openstack image set --deactivate ${vm}`
    assert.equal((await show(vm)).status, 'deactivated')
    await alt.refused`openstack image save --file ${join(scratch.path, 'none')} ${vm}`
    await ok`openstack image set --activate ${vm}`
    await alt.ok`openstack image save --file ${join(scratch.path, 'some')} ${vm}`
  })
  await step('set --hidden takes it out of lists; --unhidden puts it back', async () => {
    await ok`openstack image set --hidden ${vm}`
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --name e2e-vm`), [])
    assert.deepEqual(await listed(json<Listed[]>`openstack image list --hidden --name e2e-vm`), ['e2e-vm'])
    await ok`openstack image set --unhidden ${vm}`
  })
  await step('add project shares; the other project sees, accepts, rejects', async () => {
    await alt.refused`openstack image show ${web}`
    await ok`openstack image set --shared ${web}`
    await ok`openstack image add project ${web} ${other}`
    const members = await json<Record<string, string>[]>`openstack image member list ${web}`
    assert.deepEqual([members.length, members[0]?.['Member ID'], members[0]?.Status], [1, other, 'pending'])
    const pending = await listed(alt.json<Listed[]>`openstack image list --shared --member-status pending`)
    assert.deepEqual(pending, ['e2e-web2'])
    assert.deepEqual(await listed(alt.json<Listed[]>`openstack image list --shared`), [])
    await alt.ok`openstack image set --accept ${web}`
    assert.deepEqual(await listed(alt.json<Listed[]>`openstack image list --shared`), ['e2e-web2'])
    await alt.ok`openstack image save --file ${join(scratch.path, 'shared')} ${web}`
    await alt.refused`openstack image set --name theirs ${web}`
    await alt.ok`openstack image set --reject ${web}`
    assert.deepEqual(await listed(alt.json<Listed[]>`openstack image list --shared`), [])
    await alt.ok`openstack image set --pending ${web}`
    await refused`openstack image add project ${web} ${other}`
  })
  await step('remove project takes it back', async () => {
    await ok`openstack image remove project ${web} ${other}`
    await alt.refused`openstack image show ${web}`
  })
  await step('set --community lets others find it by id, not in their list', async () => {
    await ok`openstack image set --community ${web}`
    assert.deepEqual(await listed(alt.json<Listed[]>`openstack image list --name e2e-web2`), [])
    assert.deepEqual(await listed(alt.json<Listed[]>`openstack image list --community`), ['e2e-web2'])
    await alt.ok`openstack image show ${web}`
    await alt.refused`openstack image delete ${web}`
  })
  await step('only an administrator makes an image public', async () => {
    await alt.refused`openstack image create --disk-format raw --container-format bare --public e2e-theirs`
  })
  await step('delete takes several, and says which there was none of', async () => {
    assert.match(await refused`openstack image delete ${web} ${vm} no-such-image`, /no-such-image/)
    await refused`openstack image show ${web}`
    await refused`openstack image show ${vm}`
  })
})
