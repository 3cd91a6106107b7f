import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Shape } from '../memory-shape.ts'
import { type Chosen, devicesOf } from './command-line.ts'
import type { KeptSpec } from './machine-folder.ts'

export interface HostShape {
  readonly accelerator: 'kvm' | 'tcg'
  /** `7.2.22` */
  readonly qemuVersion: string
}

/**
 * What of a machine the stream of its memory relies on: what QEMU is, and the devices in the order in which they find their places.
 * Names of disks, their serial numbers and forwarded ports are not in the stream.
 * State that one minor version of QEMU saves the next one reads, by the machine type.
 */
export async function shapeOf(spec: KeptSpec, chosen: Chosen, host: HostShape): Promise<Shape> {
  const { hardware, cpus, memoryBytes, disks } = spec
  return {
    qemu: Number.parseInt(host.qemuVersion, 10),
    accelerator: host.accelerator,
    machineType: chosen.machineType,
    hasSlots: chosen.hasSlots ?? false,
    slots: disks.map(({ slot }) => slot),
    processor: await processorOf(hardware.cpuModel, host.accelerator),
    cpus,
    memoryBytes,
    firmware: hardware.firmware,
    secureBoot: hardware.secureBoot,
    diskBytes: disks.map(({ bytes }) => bytes),
    devices: devicesOf(spec, chosen).map(({ drive: _node, serial: _serial, ...device }) => device),
  }
}

/** The host's own processor is given to guests as it is: another one has other instructions. */
async function processorOf(model: string | null, accelerator: 'kvm' | 'tcg'): Promise<string> {
  if (model !== null && model !== 'host') return model
  if (accelerator === 'tcg') return 'emulated'
  const text = await readFile('/proc/cpuinfo', 'latin1')
  const facts = ['vendor_id', 'cpu family', 'model', 'flags'].map((name) => new RegExp(`^${name}\\s*:.*$`, 'm').exec(text)?.[0])
  return `host ${createHash('sha256').update(facts.join('\n')).digest('hex').slice(0, 16)}`
}
