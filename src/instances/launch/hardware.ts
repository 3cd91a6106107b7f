import { architectureNamed } from '../../base/architecture.ts'
import { ServiceError } from '../../base/errors.ts'
import type { Hardware, HypervisorAbilities } from '../hypervisor/hypervisor.ts'

type Properties = Readonly<Record<string, string>>

const diskBuses = ['virtio', 'scsi', 'sata', 'ide'] as const
const networkModels = ['virtio', 'e1000', 'e1000e', 'rtl8139'] as const
const firmwares = ['bios', 'uefi'] as const
/** The machine types of each architecture: a name, or one with its version (`pc-q35-7.2`). */
const machineTypes: Readonly<Record<string, RegExp>> = {
  x86_64: /^(pc|q35|(pc-q35|pc-i440fx)-\d{1,2}\.\d{1,2})$/,
  aarch64: /^virt(-\d{1,2}\.\d{1,2})?$/,
}
const machineTypeExamples: Readonly<Record<string, string>> = { x86_64: 'pc, q35, pc-q35-7.2 …', aarch64: 'virt, virt-7.2 …' }

/**
 * The machine that the image asks for by its properties, whose words are Glance's (`hw_…`). Properties that mean nothing here are
 * left alone; a value that cannot be had is refused.
 * @throws ServiceError `invalid-request`, naming the property and what it may say
 */
export function hardwareFrom(properties: Properties, abilities: HypervisorAbilities): Hardware {
  const architecture = architectureFrom(properties, abilities)
  const secureBoot = secureBootFrom(properties, abilities)
  oneOf(properties, 'hw_scsi_model', ['virtio-scsi'], 'virtio-scsi')
  oneOf(properties, 'hw_rng_model', ['virtio'], 'virtio')
  return {
    architecture,
    machineType: machineTypeFrom(properties, architecture),
    firmware: firmwareFrom(properties, architecture, secureBoot, abilities),
    secureBoot,
    diskBus: oneOf(properties, 'hw_disk_bus', diskBuses, 'virtio'),
    networkModel: oneOf(properties, 'hw_vif_model', networkModels, 'virtio'),
    cpuModel: null,
    qemuGuestAgent: yesOrNo(properties, 'hw_qemu_guest_agent'),
    randomness: true, // a guest without randomness waits for it at boot
  }
}

function architectureFrom(properties: Properties, { architectures }: HypervisorAbilities): string {
  const name = given(properties, 'hw_architecture') === undefined ? 'architecture' : 'hw_architecture'
  const value = given(properties, name)
  const wanted = value === undefined ? architectures[0] : architectureNamed(value)
  if (wanted !== undefined && architectures.includes(wanted)) return wanted
  return refuse(name, value ?? '', architectures.join(', ') || 'nothing: this host can run no guest')
}

function machineTypeFrom(properties: Properties, architecture: string): string | null {
  const value = given(properties, 'hw_machine_type')
  if (value === undefined) return null
  const pattern = machineTypes[architecture]
  if (pattern && !pattern.test(value)) refuse('hw_machine_type', value, machineTypeExamples[architecture] ?? 'nothing')
  if (!/^[a-z0-9][a-z0-9._-]{0,63}$/.test(value)) refuse('hw_machine_type', value, 'the name of a machine type')
  return value
}

function firmwareFrom(
  properties: Properties,
  architecture: string,
  secureBoot: boolean,
  abilities: HypervisorAbilities,
): Hardware['firmware'] {
  const isPc = architecture === 'x86_64' || architecture === 'i686'
  const usual = secureBoot || !isPc ? 'uefi' : 'bios'
  const wanted = oneOf(properties, 'hw_firmware_type', firmwares, usual)
  if (!abilities.firmwares.includes(wanted)) refuse('hw_firmware_type', wanted, abilities.firmwares.join(', ') || 'nothing')
  if (wanted === 'bios' && usual === 'uefi') {
    const why = secureBoot ? 'secure boot' : `the architecture ${architecture}`
    throw new ServiceError('invalid-request', `image property hw_firmware_type=bios does not go with ${why}, which needs uefi`)
  }
  return wanted
}

/** `optional`: Nova turns it on where the host can. Then a system that is not signed would not start: here it stays off. */
function secureBootFrom(properties: Properties, abilities: HypervisorAbilities): boolean {
  const wanted = oneOf(properties, 'os_secure_boot', ['required', 'optional', 'disabled'] as const, 'disabled') === 'required'
  if (wanted && !abilities.secureBoot) refuse('os_secure_boot', 'required', 'optional, disabled')
  return wanted
}

function yesOrNo(properties: Properties, name: string): boolean {
  const yes = ['yes', 'true', '1', 'on'] as const
  return (yes as readonly string[]).includes(oneOf(properties, name, [...yes, 'no', 'false', '0', 'off'] as const, 'no'))
}

function oneOf<T extends string>(properties: Properties, name: string, values: readonly T[], byDefault: T): T {
  const value = given(properties, name)
  if (value === undefined) return byDefault
  return values.find((known) => known === value) ?? refuse(name, value, values.join(', '))
}

/** Case and blanks do not matter; nothing is as good as absent. */
const given = (properties: Properties, name: string): string | undefined =>
  (Object.hasOwn(properties, name) ? properties[name] : undefined)?.trim().toLowerCase() || undefined

function refuse(name: string, value: string, possible: string): never {
  throw new ServiceError(
    'invalid-request',
    `image property ${name}=${JSON.stringify(value.slice(0, 80))} cannot be had on this host, which has: ${possible}`,
    { property: name },
  )
}
