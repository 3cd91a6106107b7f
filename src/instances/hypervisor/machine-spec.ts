import { ServiceError } from '../../base/errors.ts'
import type { NewBase } from './disk-layers.ts'
import type { DiskAddress, HypervisorAbilities, MachineChanges, MachineDisk, MachineNetwork, MachineSpec } from './hypervisor.ts'

/** What every adapter refuses, before anything is made. Who calls has checked it for people; this keeps a mistake from a host. */

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
/** Unicast and locally or globally administered: a guest with a group address has no network. */
const MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/
const DISK_NAME = /^[a-zA-Z0-9-]{1,40}$/
/** ATA's field for it; virtio's too. Printable ASCII: it goes into the guest as it is. */
const SERIAL = /^[\x20-\x7e]{0,20}$/
const IPV4 = /^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$/
const MAX_NAME_CODE_POINTS = 255 // Nova's limit
export const MAX_DISKS = 16 // with 8 network cards and what else a machine has, they fit the 32 slots of a PCI bus
export const MAX_NETWORKS = 8
const MAX_FORWARDS = 64
const MAX_SEED_BYTES = 4 * 1024 * 1024 // user data is at most 64 KiB in Nova
/** What a unix socket's address can hold, less its final zero: `sun_path` of unix(7). */
const MAX_SOCKET_PATH_BYTES = 107
/** NBD's own limit for a name. */
const MAX_EXPORT_NAME_BYTES = 4096
const SECTOR_BYTES = 512

/** A machine's id names its folder: nothing but a UUID in small letters gets through. */
export const isMachineId = (id: string): boolean => UUID.test(id)

/** @throws ServiceError `invalid-request`, naming the first thing that cannot be, and what can */
export function assertSpec(spec: MachineSpec, abilities: HypervisorAbilities): void {
  must(isMachineId(spec.id), 'the id of a machine must be a UUID in small letters')
  must([...spec.name].length <= MAX_NAME_CODE_POINTS, `its name is longer than ${MAX_NAME_CODE_POINTS} characters`)
  must(!spec.name.includes('\0') && spec.name.isWellFormed(), 'its name has a character that no file or process can hold')
  must(
    whole(spec.cpus, 1) && spec.cpus <= abilities.maxCpus,
    `it asks for ${spec.cpus} processors; a machine here has 1 to ${abilities.maxCpus}`,
  )
  must(whole(spec.memoryBytes, 1024 * 1024), 'its memory must be whole bytes, at least 1 MiB')
  assertHardware(spec, abilities)
  assertDisks(spec.disks)
  must(spec.networks.length <= MAX_NETWORKS, `it has ${spec.networks.length} networks; ${MAX_NETWORKS} is the limit`)
  must(distinct(spec.networks.map((network) => network.mac)), 'two of its network cards have one address')
  for (const network of spec.networks) assertNetwork(network)
  must(!spec.memory || !spec.seed, 'its memory comes with a seed of its own')
  must((spec.memory?.seedDisc?.length ?? 0) <= 2 * MAX_SEED_BYTES, 'the disc of its memory is larger than any that is made here')
  const seedBytes = Object.values(spec.seed ?? {}).reduce((sum, text) => sum + Buffer.byteLength(text ?? ''), 0)
  must(seedBytes <= MAX_SEED_BYTES, `its seed has ${seedBytes} bytes; ${MAX_SEED_BYTES} is the limit`)
}

/** The machine as it is to be started now. @throws ServiceError `invalid-request` for a disk that it has not */
export function changed<Spec extends Pick<MachineSpec, 'disks'>>(spec: Spec, { addresses = {} }: MachineChanges): Spec {
  for (const name of Object.keys(addresses)) {
    must(
      spec.disks.some((disk) => disk.name === name && (disk.base ?? disk.store)),
      `it has no disk "${name}" with a base or a store`,
    )
  }
  const disks = spec.disks.map((disk) => {
    if (!Object.hasOwn(addresses, disk.name)) return disk
    return { ...disk, [disk.store ? 'store' : 'base']: addresses[disk.name]! }
  })
  for (const disk of disks) assertDisk(disk)
  return { ...spec, disks }
}

/** The disk as it is on its new base. @throws ServiceError `not-found`, `invalid-request` */
export function rebased<Disk extends MachineDisk & { readonly layers: readonly number[] }>(
  id: string,
  disks: readonly Disk[],
  name: string,
  { base, through }: NewBase,
): Disk & { readonly base: DiskAddress } {
  const disk = disks.find((each) => each.name === name)
  const isKnown = disk && !disk.store && through >= 0 && [disk.layers[0]! - 1, ...disk.layers.slice(0, -1)].includes(through)
  if (!isKnown) {
    throw new ServiceError('not-found', `The disk "${name}" of the machine ${id} has no sealed layer ${through}.`, { id })
  }
  const moved = { ...disk, base: structuredClone(base), layers: disk.layers.filter((layer) => layer > through) }
  assertDisk(moved)
  return moved
}

function assertHardware({ hardware }: MachineSpec, abilities: HypervisorAbilities): void {
  const { architecture, firmware, secureBoot } = hardware
  const { architectures, firmwares } = abilities
  must(
    architectures.includes(architecture),
    `its architecture is ${architecture}, and this host runs ${architectures.join(', ') || 'none'}`,
  )
  must(firmwares.includes(firmware), `it needs ${firmware} firmware, and this host has ${firmwares.join(', ') || 'none'}`)
  must(!secureBoot || firmware === 'uefi', 'secure boot needs uefi firmware')
  must(!secureBoot || abilities.secureBoot, 'it needs secure boot, and this host has no firmware for that')
}

/** @throws ServiceError `invalid-request` */
export function assertDisks(disks: readonly MachineDisk[]): void {
  must(disks.length <= MAX_DISKS, `it has ${disks.length} disks; ${MAX_DISKS} is the limit`)
  must(distinct(disks.map((disk) => disk.name)), 'two of its disks have one name')
  for (const disk of disks) assertDisk(disk)
}

function assertDisk({ name, bytes, serial, base, store }: MachineDisk): void {
  must(DISK_NAME.test(name), 'the name of a disk is letters, digits and "-", at most 40')
  must(whole(bytes, SECTOR_BYTES) && bytes % SECTOR_BYTES === 0, `disk ${name} must have a multiple of ${SECTOR_BYTES} bytes`)
  must(SERIAL.test(serial), `the serial number of disk ${name} must be printable ASCII, at most 20 characters`)
  must(!base || !store, `disk ${name} cannot have a base and a store`)
  if (base) assertAddress(base, `the base of disk ${name}`)
  if (store) assertAddress(store, `the store of disk ${name}`)
}

function assertAddress({ socketPath, exportName }: DiskAddress, of: string): void {
  must(
    socketPath.startsWith('/') && Buffer.byteLength(socketPath) <= MAX_SOCKET_PATH_BYTES && !socketPath.includes('\0'),
    `the socket of ${of} must be an absolute path of at most ${MAX_SOCKET_PATH_BYTES} bytes`,
  )
  must(
    Buffer.byteLength(exportName) <= MAX_EXPORT_NAME_BYTES && !exportName.includes('\0'),
    `the export of ${of} must have a name of at most ${MAX_EXPORT_NAME_BYTES} bytes`,
  )
}

function assertNetwork({ mac, forwards, isIsolated = false, bridge }: MachineNetwork): void {
  must(bridge === undefined || isBridgeName(bridge), 'the name of a bridge is up to 15 letters, digits, "_", "." and "-"')
  must(
    bridge === undefined || (forwards.length === 0 && !isIsolated),
    'a machine in a bridge has no forwarded ports, and is not isolated',
  )
  must(MAC.test(mac), 'a network card needs a unicast MAC address in small letters')
  must(forwards.length <= MAX_FORWARDS, `it forwards ${forwards.length} ports; ${MAX_FORWARDS} is the limit`)
  for (const { protocol, hostAddress, hostPort, guestPort } of forwards) {
    must(protocol === 'tcp' || protocol === 'udp', 'a forwarded port is tcp or udp')
    must(IPV4.test(hostAddress), 'ports are forwarded from an IPv4 address of this host')
    must(isPort(hostPort) && isPort(guestPort), 'a port is a number from 1 to 65535')
  }
}

/** What the kernel takes for a name, and no shell or option takes for anything else. */
export const isBridgeName = (name: string): boolean => /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(name)

const isPort = (port: number): boolean => whole(port, 1) && port <= 65_535
const whole = (value: number, least: number): boolean => Number.isSafeInteger(value) && value >= least
const distinct = (values: readonly string[]): boolean => new Set(values).size === values.length

function must(holds: boolean, problem: string): asserts holds {
  if (!holds) throw new ServiceError('invalid-request', `the machine cannot be made: ${problem}`)
}
