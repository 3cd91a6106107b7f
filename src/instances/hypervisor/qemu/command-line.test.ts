import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { GiB, MiB } from '../../../base/units.ts'
import type { Hardware, MachineSpec } from '../hypervisor.ts'
import { choose, planMachine } from './command-line.ts'
import type { Firmware } from './firmware.ts'
import { keptSpec } from './machine-folder.ts'
import type { QemuProgram } from './program.ts'

const pc = { name: 'pc-i440fx-7.2', maxCpus: 255 }
const q35 = { name: 'pc-q35-7.2', maxCpus: 288 }
const program: QemuProgram = {
  path: '/usr/bin/qemu-system-x86_64',
  version: '7.2.0',
  cpuModels: new Set(['qemu64', 'max']),
  machineTypes: new Map([
    ['pc', pc],
    [pc.name, pc],
    ['q35', q35],
    [q35.name, q35],
    ['microvm', { name: 'microvm', maxCpus: 288 }],
  ]),
}
const plain: Firmware = {
  codePath: '/firmware/code.fd',
  variablesPath: '/firmware/variables.fd',
  architecture: 'x86_64',
  machines: ['pc-i440fx-*', 'pc-q35-*'],
  secureBoot: false,
  needsSmm: false,
}
const secure: Firmware = { ...plain, codePath: '/firmware/secure.fd', machines: ['pc-q35-*'], secureBoot: true, needsSmm: true }
const base = { socketPath: '/run/nbd.sock', exportName: 'secret-of-the-disk' }
const hardware: Hardware = {
  architecture: 'x86_64',
  machineType: null,
  firmware: 'bios',
  secureBoot: false,
  diskBus: 'virtio',
  networkModel: 'virtio',
  cpuModel: null,
  qemuGuestAgent: true,
  randomness: true,
}
const spec = (changes: Partial<MachineSpec> = {}, wants: Partial<Hardware> = {}): MachineSpec => ({
  id: randomUUID(),
  name: 'web',
  cpus: 2,
  memoryBytes: 512 * MiB,
  hardware: { ...hardware, ...wants },
  disks: [
    { name: 'root', bytes: GiB, serial: 'r,oot=1', base },
    { name: randomUUID(), bytes: GiB, serial: '' },
  ],
  networks: [
    {
      mac: '52:54:00:00:00:01',
      forwards: [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 2222, guestPort: 22 }],
    },
  ],
  seed: { metaData: '', userData: Buffer.of(), networkConfig: null, vendorData: null },
  ...changes,
})
const tapOf = (card: number) => `tap${card}`
const plan = (one: MachineSpec, firmwares: readonly Firmware[] = [plain, secure], accelerator: 'kvm' | 'tcg' = 'tcg') => {
  const chosen = choose(one, program, firmwares)
  const firmware = one.hardware.firmware === 'uefi' ? (one.hardware.secureBoot ? secure : plain) : undefined
  return planMachine(keptSpec(one), chosen, { accelerator, firmware, tapOf })
}
const valuesOf = (args: readonly string[], option: string) =>
  args.flatMap((arg, index) => (args[index - 1] === option ? [arg] : []))

test('a secret stands in no argument: every user of the host can read them', () => {
  const { args, blockNodes } = plan(spec())
  assert.ok(!args.join(' ').includes(base.exportName))
  assert.equal(blockNodes.find((node) => node.driver === 'nbd')?.export, base.exportName)
})

test('a card in a bridge is a tap that is there: QEMU runs nothing for it', () => {
  const { args } = plan(spec({ networks: [{ mac: 'fa:16:3e:00:00:01', forwards: [], bridge: 'br0' }] }))
  assert.deepEqual(
    valuesOf(args, '-netdev').map((text) => JSON.parse(text)),
    [{ type: 'tap', id: 'net0', ifname: 'tap0', script: 'no', downscript: 'no', vhost: false }],
  )
})

test('no driver is left to be probed, and no disk is read beneath its overlay but the one that was named', () => {
  const { blockNodes } = plan(spec())
  assert.deepEqual(
    blockNodes.map((node) => [node['node-name'], node.driver, node.backing]),
    [
      ['nbd0-0', 'nbd', undefined],
      ['base0-0', 'raw', undefined],
      ['disk0-0', 'qcow2', 'base0-0'],
      ['disk1-0', 'qcow2', null],
      ['seed', 'raw', undefined],
    ],
  )
  for (const { 'node-name': name } of blockNodes) assert.ok(name.length <= 31, 'QEMU takes no longer name')
})

test('the layers of a disk lie on its base in order, and only the top one is written to', () => {
  const one = keptSpec(spec())
  const [root, ...others] = one.disks
  const chosen = choose(spec(), program, [])
  const layered = { ...one, disks: [{ ...root!, layers: [0, 1, 5] }, ...others] }
  const { args, blockNodes } = planMachine(layered, chosen, { accelerator: 'tcg', firmware: undefined, tapOf })
  const layers = blockNodes.filter((node) => node['node-name'].startsWith('disk0-'))
  assert.deepEqual(
    layers.map((node) => [node['node-name'], node.backing, node['read-only']]),
    [
      ['disk0-0', 'base0-0', true],
      ['disk0-1', 'disk0-0', true],
      ['disk0-5', 'disk0-1', false],
    ],
  )
  assert.equal((JSON.parse(valuesOf(args, '-device')[0]!) as { drive: string }).drive, 'disk0-5')
})

test('any name stays one value of one option', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 80 }), (name) => {
      const { args } = plan(spec({ name }))
      const [value = ''] = valuesOf(args, '-name')
      assert.ok(value.startsWith('guest='))
      assert.ok(!value.slice('guest='.length).replaceAll(',,', '').includes(','))
      assert.ok(!/\p{Cc}/u.test(value))
      const [smbios = ''] = valuesOf(args, '-smbios')
      assert.equal(smbios.replaceAll(',,', '').split(',').length, 3)
    }),
  )
})

test('emulation is not asked to be the host processor', () => {
  const processor = (model: string | null, accelerator: 'kvm' | 'tcg') =>
    valuesOf(plan(spec({}, { cpuModel: model }), [], accelerator).args, '-cpu')[0]
  assert.equal(processor(null, 'tcg'), 'max')
  assert.equal(processor('host', 'tcg'), 'max')
  assert.equal(processor(null, 'kvm'), 'host')
  assert.equal(processor('qemu64', 'kvm'), 'qemu64')
})

const types: readonly (readonly [string, Partial<Hardware>, string])[] = [
  ['BIOS', {}, pc.name],
  ['UEFI', { firmware: 'uefi' }, q35.name],
  ['UEFI and an IDE disk', { firmware: 'uefi', diskBus: 'ide' }, pc.name],
  ['an alias', { machineType: 'q35' }, q35.name],
  ['a full name', { machineType: pc.name }, pc.name],
]
for (const [what, wants, name] of types) {
  test(`the machine type for ${what} is ${name}`, () => {
    assert.equal(choose(spec({ disks: [] }, wants), program, [plain]).machineType, name)
  })
}

const disks = (count: number) => Array.from({ length: count }, (_, index) => ({ name: `d${index}`, bytes: GiB, serial: '' }))
const refused: readonly (readonly [string, MachineSpec, readonly Firmware[], RegExp])[] = [
  ['a type that is not made here', spec({}, { machineType: 'microvm' }), [], /no machine type "microvm"/],
  ['an option in a type', spec({}, { machineType: 'pc,dump-guest-core=on' }), [], /no machine type/],
  ['an option in a processor', spec({}, { cpuModel: 'max,vendor=x' }), [], /no processor model/],
  ['UEFI that is not there', spec({}, { firmware: 'uefi' }), [], /no UEFI firmware/],
  [
    'secure boot on the old chipset',
    spec({}, { firmware: 'uefi', secureBoot: true, machineType: 'pc' }),
    [secure],
    /with secure boot/,
  ],
  ['IDE on a chipset without', spec({}, { machineType: 'q35', diskBus: 'ide' }), [], /has no IDE bus/],
  ['five IDE places', spec({ disks: disks(4) }, { diskBus: 'ide' }), [], /has 4 places, and it needs 5/],
  ['too many processors', spec({ cpus: 256 }), [], /at most 255/],
]
for (const [what, one, firmwares, says] of refused) {
  test(`${what} is refused`, () => {
    assert.throws(() => choose(one, program, firmwares), { code: 'invalid-request', message: says })
  })
}

test('secure boot brings what guards its variables', () => {
  const { args } = plan(spec({}, { firmware: 'uefi', secureBoot: true }))
  assert.match(valuesOf(args, '-machine')[0]!, /smm=on/)
  assert.ok(valuesOf(args, '-global').includes('driver=cfi.pflash01,property=secure,value=on'))
  const nodes = valuesOf(args, '-blockdev').map((text) => JSON.parse(text) as { 'node-name': string; 'read-only'?: boolean })
  assert.deepEqual(
    nodes.map((node) => [node['node-name'], node['read-only']]),
    [
      ['firmware', true],
      ['variables', undefined],
    ],
  )
})

for (const diskBus of ['virtio', 'scsi', 'sata', 'ide'] as const) {
  test(`on ${diskBus} the disks come in order, then the seed, each in a place of its own`, () => {
    const one = spec({ disks: disks(diskBus === 'ide' ? 3 : 13) }, { diskBus })
    const devices = valuesOf(plan(one).args, '-device').map((text) => JSON.parse(text) as Record<string, string | number>)
    const drives = devices.filter((device) => 'drive' in device)
    assert.deepEqual(
      drives.map((device) => device.drive),
      [...one.disks.map((_, index) => `disk${index}-0`), 'seed'],
    )
    const places = drives.map((device) => JSON.stringify([device.bus, device.unit, device['scsi-id']]))
    if (diskBus !== 'virtio') assert.equal(new Set(places).size, drives.length)
  })
}
