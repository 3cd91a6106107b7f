/** tempest.api.compute, as far as it needs no network service and no volumes; its servers are machines of QEMU. */
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { computeMicroversions } from '../../src/serve/http/compute/microversion.ts'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { makeRawImage } from './disk-images.ts'
import { startImprint } from './image-service.ts'
import { runTempest, tempestAccounts } from './tempest.ts'
import { type ExplainedSkips, reportTempest } from './tempest-report.ts'

/** What is served here. The rest of tempest.api.compute is of volumes, networks, migrations and what else is not. */
const served = [
  ...[
    'flavors',
    'keypairs',
    'limits',
    'test_versions',
    'admin.test_flavors',
    'admin.test_keypairs',
    'admin.test_availability_zone',
  ],
  ...['admin.test_hypervisor', 'servers.test_servers', 'servers.test_create_server', 'servers.test_delete_server'],
  ...['servers.test_list_server', 'servers.test_server_metadata', 'servers.test_server_tags', 'servers.test_multiple_create'],
  ...['servers.test_availability_zone', 'servers.test_disk_config', 'servers.test_server_addresses'],
]
const logsIn = 'logs in to the guest'
const noNetworks = 'needs a network service'
const noVolumes = 'needs volumes'
const noShelves = 'servers are paused or stopped, and there is no other rest'
const explained: ExplainedSkips = {
  FlavorMetadataValidation: 'is of version 2.86: the last one here is 2.79',
  ServersTestFqdnHostnames: logsIn,
  test_host_name_is_same: logsIn,
  test_verify_created_server_vcpus: logsIn,
  ServersTestMultiNic: noNetworks,
  filtered_by_ip: noNetworks,
  BootFromVolume: noVolumes,
  volume: noVolumes,
  invalid_bdm: noVolumes,
  resize: 'a server has the size that it was made with',
  shelve: noShelves,
  suspend: noShelves,
  resume: noShelves,
  admin_password: 'needs every server to have a password that is made up',
  personality: 'files are not injected: user data are',
}
/** Refused here, in words: a test that asks for it is no test of this service. */
const refused = [
  'test_keypairsv22_create_list_show_with_type', // makes a keypair of type x509
  'rebuild',
  'test_restore_', // of servers that are deleted and kept
  'V263', // certificates of images
  'test_list_api_versions', // wants version 2.0 beside 2.1
]

test('tempest.api.compute', { skip: missingTool('tempest', 'stestr', 'qemu-system-x86_64') }, async (t) => {
  const scratch = await scratchFolder('tempest')
  t.after(scratch.stop)
  const service = await startImprint({ settings: { IMPRINT_INSTANCE_ACCELERATOR: 'tcg', IMPRINT_INSTANCE_STOP_SECONDS: '1' } })
  t.after(() => endMachines(service.dataFolder)) // before its folder goes with it
  t.after(service.stop)
  const accounts = await tempestAccounts(service)
  const ask = async <T>(method: string, path: string, body: unknown, type = 'application/json'): Promise<T> => {
    const headers = { 'x-auth-token': service.cast.admin.token, 'content-type': type }
    const bytes = body instanceof Uint8Array ? Buffer.from(body) : JSON.stringify(body)
    const response = await fetch(service.address + path, { method, headers, body: bytes })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    return (response.status === 204 ? undefined : await response.json()) as T
  }

  const raw = await readFile(await makeRawImage(scratch.path))
  const makeImage = async (name: string): Promise<string> => {
    const wanted = { name, disk_format: 'raw', container_format: 'bare', visibility: 'public' }
    const { id } = await ask<{ readonly id: string }>('POST', '/image/v2/images', wanted)
    await ask('PUT', `/image/v2/images/${id}/file`, raw, 'application/octet-stream')
    return id
  }
  const makeFlavor = async (name: string): Promise<string> => {
    const flavor = { id: name, name, ram: 64, vcpus: 1, disk: 1 }
    await ask('POST', '/compute/v2.1/flavors', { flavor })
    return name
  }
  const compute = {
    imageId: await makeImage('first'),
    otherImageId: await makeImage('second'),
    flavorId: await makeFlavor('tempest-1'),
    otherFlavorId: await makeFlavor('tempest-2'),
    maxVersion: `2.${computeMicroversions.most}`,
  }
  const select =
    process.env.IMPRINT_TEMPEST_SELECT ?? `^(?!.*(${refused.join('|')})).*tempest\\.api\\.compute\\.(${served.join('|')})`
  const results = await runTempest({ folder: scratch.path, service, importUrl: '', accounts, compute, select })
  await reportTempest(t, results, explained)
})
