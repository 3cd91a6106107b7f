import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { machine as architecture } from 'node:os'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { scratch } from '../../../test/fixtures/disk/tools.ts'
import { architectureNamed } from '../../base/architecture.ts'
import { GiB } from '../../base/units.ts'
import { assertFits, misfits } from './fit.ts'
import { isModel, patternsIn } from './server-models.ts'
import { type Machine, thisMachine } from './this-machine.ts'

const server: Machine = {
  models: [
    { maker: 'Dell Inc.', product: 'PowerEdge R740' },
    { maker: 'Dell Inc.', product: '0WGD1' },
  ],
  architecture: 'x86_64',
  firmware: 'uefi',
  memoryBytes: 7.6 * GiB,
}
const disk = { bytes: 100 * GiB, sectorBytes: 512, tableSectorBytes: 512 }
const image = (properties: Readonly<Record<string, string>>, more = {}) => ({
  name: 'debian',
  minDiskGb: 0,
  minRamMb: 0,
  properties,
  ...more,
})

/** A folder as /sys has it. */
async function sys(t: TestContext, dmi: Readonly<Record<string, string>>, isUefi: boolean): Promise<string> {
  const path = await scratch(t)
  await mkdir(path('class/dmi/id'), { recursive: true })
  for (const [name, text] of Object.entries(dmi)) await writeFile(path(`class/dmi/id/${name}`), `${text}\n`)
  if (isUefi) await mkdir(path('firmware/efi'), { recursive: true })
  return path('')
}

test('a machine is what its firmware says of it', async (t) => {
  const dmi = {
    sys_vendor: 'LENOVO',
    product_name: '7X06CTO1WW',
    product_version: 'ThinkSystem SR650',
    board_vendor: 'Intel',
    board_name: 'S2600',
  }
  const found = await thisMachine(await sys(t, dmi, true))
  assert.deepEqual(found.models, [
    { maker: 'LENOVO', product: '7X06CTO1WW' },
    { maker: 'LENOVO', product: 'ThinkSystem SR650' },
    { maker: 'Intel', product: 'S2600' },
  ])
  assert.deepEqual([found.firmware, found.architecture], ['uefi', architectureNamed(architecture())])
  const silent = await thisMachine(await sys(t, {}, false))
  assert.deepEqual([silent.models, silent.firmware], [[], 'bios'])
})

const fits: readonly Readonly<Record<string, string>>[] = [
  {},
  { server_models: '' },
  { server_models: 'Dell Inc./PowerEdge R7?0' },
  { server_models: 'HPE/*; dell*/poweredge*' },
  { server_models: '0wgd1' },
  { hw_architecture: 'amd64' },
  { architecture: 'i686' },
  { hw_firmware_type: 'UEFI' },
  { rootdisk_min_bytes: String(50 * GiB) },
]
for (const properties of fits) {
  test(`an image with ${JSON.stringify(properties)} fits`, () => assertFits(image(properties), server, disk))
}

const unfit = [
  {
    properties: { server_models: 'HPE/ProLiant*; R740' },
    says: /made for HPE\/ProLiant\*; R740 .*this is a Dell Inc\. PowerEdge R740/,
  },
  { properties: { server_models: 'PowerEdge R74' }, says: /server_models/ },
  { properties: { hw_architecture: 'arm64' }, says: /aarch64 processors .* x86_64/ },
  { properties: { hw_firmware_type: 'bios' }, says: /starts by BIOS .* started by UEFI/ },
  { properties: { rootdisk_min_bytes: String(200 * GiB) }, says: /a disk of 200 GiB, and this one has 100 GiB/ },
  { properties: { img_type: 'partition' }, says: /one partition/ },
  { properties: {}, more: { minDiskGb: 101 }, says: /101 GiB/ },
  { properties: {}, more: { minRamMb: 16_384 }, says: /16384 MiB of memory/ },
]
for (const { properties, more, says } of unfit) {
  test(`an image with ${JSON.stringify({ ...properties, ...more })} is refused with the reason`, () => {
    assert.throws(() => assertFits(image(properties, more), server, disk), { code: 'conflict', message: says })
  })
}

test('memory that firmware keeps is forgiven; blocks of another size are not; all that is wrong is said at once', () => {
  assertFits(image({}, { minRamMb: 8192 }), server, disk)
  assert.match(misfits(image({}), server, { ...disk, sectorBytes: 4096 })[0]!, /blocks of 512 bytes.*4096/)
  assert.equal(misfits(image({ hw_firmware_type: 'bios', architecture: 's390x', server_models: 'x' }), server, disk).length, 3)
  assert.match(misfits(image({ server_models: 'x' }), { ...server, models: [] }, disk)[0]!, /does not say what it is/)
})

test('patterns agree with regular expressions, and none takes long', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?'), maxLength: 10 })
  const plain = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 14 })
  fc.assert(
    fc.property(letters, plain, (pattern, product) => {
      const expected = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(product)
      assert.equal(isModel(pattern, { maker: '', product }), expected)
    }),
    { numRuns: 1000 },
  )
  assert.equal(isModel(`${'a*'.repeat(2000)}b`, { maker: '', product: 'a'.repeat(5000) }), false)
  assert.equal(patternsIn(';a;'.repeat(30_000)).length, 1000)
})
