import { ServiceError } from '../../../base/errors.ts'
import { KiB } from '../../../base/units.ts'
import type { MachineSpec } from '../hypervisor.ts'
import { type Chipset, type Device, networkDevices, otherDevices, type Places, storageDevices } from './devices.ts'
import { type BlockNode, diskNodes } from './disk-nodes.ts'
import { type Firmware, firmwareFor } from './firmware.ts'
import { ruleOf } from './late-forwards.ts'
import { files } from './machine-files.ts'
import { type KeptSpec, keptSpec } from './machine-folder.ts'
import type { QemuProgram } from './program.ts'
import { savedChoice } from './saved-choice.ts'

/**
 * A machine as QEMU is told of it. What can be JSON is; the few words of people that must stand in QEMU's older syntax are escaped
 * (a comma is doubled there). Disks are not on the command line, which every user of the host can read: the names of their exports
 * are secrets. They are added over QMP, before devices are made.
 */
export interface MachinePlan {
  /** All but the program's own name. */
  readonly args: readonly string[]
  /** For `blockdev-add`, in this order. */
  readonly blockNodes: readonly BlockNode[]
}

/** What a machine keeps from its first start to its last, so that an update of QEMU changes nothing that the guest sees. */
export interface Chosen {
  /** Full name: `pc-i440fx-7.2`. */
  readonly machineType: string
  /** Whether its disks have their places by their slots; machines of before there were slots have not. */
  readonly hasSlots?: boolean
}

const MAX_DMI_CHARACTERS = 64 // "each text string is limited to 64": SMBIOS up to 2.6, section 6.1.3

/**
 * @throws ServiceError `invalid-request` for a machine type, processor model, firmware or bus that this QEMU cannot give
 */
export function choose(machine: MachineSpec, program: QemuProgram, firmwares: readonly Firmware[]): Chosen {
  const spec = keptSpec(machine)
  const { machineType, firmware, diskBus, cpuModel } = spec.hardware
  const saved = machine.memory && savedChoice(machine.memory.shape)
  const type = saved?.machineType ?? machineType ?? (firmware === 'uefi' && diskBus !== 'ide' ? 'q35' : 'pc')
  const known = program.machineTypes.get(type)
  must(known && chipsetOf(known.name), `QEMU ${program.version} has no machine type "${type}" that is made here; take pc or q35`)
  must(spec.cpus <= known.maxCpus, `machine type ${known.name} has at most ${known.maxCpus} processors`)
  must(cpuModel === null || cpuModel === 'host' || program.cpuModels.has(cpuModel), `QEMU has no processor model "${cpuModel}"`)
  const chosen = { machineType: known.name, hasSlots: saved?.hasSlots ?? true }
  if (firmware === 'uefi') must(firmwareOf(spec, chosen, firmwares), uefiProblem(spec, known.name))
  storageDevices(spec, placesOf(chosen)!) // whether they suffice
  return chosen
}

const uefiProblem = ({ hardware: { secureBoot } }: KeptSpec, machineType: string): string =>
  `this host has no UEFI firmware for machine type ${machineType} ${secureBoot ? 'with' : 'without'} secure boot`

/** Undefined for a type that is not made here. */
export function placesOf({ machineType, hasSlots = false }: Chosen): Places | undefined {
  const chipset = chipsetOf(machineType)
  return chipset && { chipset, hasSlots }
}

function chipsetOf(machineType: string): Chipset | undefined {
  if (machineType.startsWith('pc-q35-')) return 'q35'
  return machineType.startsWith('pc-i440fx-') ? 'pc' : undefined
}

/** Undefined where this host has none, or the machine starts by BIOS. */
export const firmwareOf = (
  { hardware }: KeptSpec,
  { machineType }: Chosen,
  firmwares: readonly Firmware[],
): Firmware | undefined =>
  hardware.firmware === 'uefi'
    ? firmwareFor(firmwares, { architecture: 'x86_64', machineType, secureBoot: hardware.secureBoot })
    : undefined

/**
 * @param host.accelerator what the machine runs by now
 * @param host.isFilled it does not start anew: its memory and the state of its devices come from a stream
 * @param host.isArriving its ports are another process's by now
 * @param host.tapOf the device of the host behind a card that is in a bridge
 */
export function planMachine(
  spec: KeptSpec,
  chosen: Chosen,
  host: {
    readonly accelerator: 'kvm' | 'tcg'
    readonly firmware: Firmware | undefined
    readonly isFilled?: boolean
    readonly isArriving?: boolean
    readonly tapOf: (card: number) => string
  },
): MachinePlan {
  const { accelerator, firmware } = host
  const { id, cpus, memoryBytes, hardware, networks } = spec
  if (hardware.firmware === 'uefi') must(firmware, uefiProblem(spec, chosen.machineType))
  const args = [
    ['-name', `guest=${escaped(printable(spec.name))}`],
    ['-uuid', id],
    ['-machine', machineArgument(chosen, firmware)],
    ...firmwareNodes(firmware).map((node) => ['-blockdev', json(node)]), // the machine has them before `preconfig`; no secrets
    ['-accel', accelerator],
    ['-cpu', cpuOf(hardware.cpuModel, accelerator)],
    ['-smp', `cpus=${cpus},sockets=1,cores=${cpus},threads=1`],
    ['-m', `${Math.ceil(memoryBytes / KiB)}k`],
    ['-nodefaults', '-no-user-config', '-preconfig', '-S'],
    ['-display', 'none'],
    ['-no-shutdown'], // a guest that goes off is told from a process that dies, also when nobody looked
    ['-boot', 'strict=on'],
    ['-rtc', 'base=utc'],
    ['-smbios', `type=1,manufacturer=Imprint,product=${escaped(dmi(spec.name))}`],
    // a guest that sleeps would be neither running nor off
    ['-global', 'PIIX4_PM.disable_s3=1', '-global', 'ICH9-LPC.disable_s3=1'],
    ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ['-chardev', `socket,id=monitor,path=${files.monitor},server=on,wait=off`, '-mon', 'chardev=monitor,mode=control'],
    ['-chardev', `socket,id=serial,path=${files.serial},server=on,wait=off,logfile=${files.console},logappend=on`],
    ...(hardware.qemuGuestAgent ? [['-chardev', `socket,id=agent,path=${files.agent},server=on,wait=off`]] : []),
    ...(hardware.randomness ? [['-object', json({ 'qom-type': 'rng-builtin', id: 'randomness' })]] : []),
    ...(hardware.secureBoot ? [['-global', 'driver=cfi.pflash01,property=secure,value=on']] : []),
    ...networks.map((network, index) => [
      '-netdev',
      json(
        network.bridge === undefined
          ? userNetwork(host.isArriving ? { ...network, forwards: [] } : network, index)
          : tapNetwork(host.tapOf(index), index),
      ),
    ]),
    ...devicesOf(spec, chosen).map((device) => ['-device', json(device)]),
    ...(host.isFilled ? [['-incoming', 'defer']] : []),
  ]
  return { args: args.flat(), blockNodes: diskNodes(spec) }
}

/**
 * In the order in which they find their places.
 * @throws ServiceError `invalid-request`
 */
export function devicesOf(spec: KeptSpec, chosen: Chosen): readonly Device[] {
  const places = placesOf(chosen)
  if (!places) throw new ServiceError('invalid-request', `This QEMU makes no machine of type ${chosen.machineType} any more.`)
  return [...storageDevices(spec, places), ...networkDevices(spec), ...otherDevices(spec)]
}

/** `host` is more than emulation can be; `max` is all that it can. */
const cpuOf = (model: string | null, accelerator: 'kvm' | 'tcg'): string =>
  model === null || model === 'host' ? { kvm: 'host', tcg: 'max' }[accelerator] : model

const machineArgument = ({ machineType }: Chosen, firmware: Firmware | undefined): string =>
  [
    `type=${machineType}`,
    ...(firmware ? ['pflash0=firmware', 'pflash1=variables'] : []),
    ...(firmware?.needsSmm ? ['smm=on'] : []),
  ].join(',')

const userNetwork = ({ forwards, isIsolated = false }: KeptSpec['networks'][number], index: number) => ({
  type: 'user',
  id: `net${index}`,
  restrict: isIsolated,
  hostfwd: forwards.map((forward) => ({ str: ruleOf(forward) })),
})

/** The tap is there and in its bridge: QEMU runs nothing for it. */
const tapNetwork = (ifname: string, index: number) => ({
  type: 'tap',
  id: `net${index}`,
  ifname,
  script: 'no',
  downscript: 'no',
  vhost: false, // the kernel would read rings of the guest's in its own stead
})

const firmwareNodes = (firmware: Firmware | undefined): readonly BlockNode[] =>
  firmware
    ? [
        { driver: 'raw', 'node-name': 'firmware', 'read-only': true, file: { driver: 'file', filename: firmware.codePath } },
        { driver: 'raw', 'node-name': 'variables', file: { driver: 'file', filename: files.variables } },
      ]
    : []

const json = (value: object): string => JSON.stringify(value)

/** In QEMU's own syntax of options. */
const escaped = (text: string): string => text.replaceAll(',', ',,')

/** Control characters would only confuse those who read a list of processes. */
const printable = (text: string): string => text.replaceAll(/\p{Cc}/gu, ' ')

const dmi = (name: string): string => [...printable(name)].slice(0, MAX_DMI_CHARACTERS).join('')

function must(holds: unknown, problem: string): asserts holds {
  if (!holds) throw new ServiceError('invalid-request', `the machine cannot be made: ${problem}`)
}
