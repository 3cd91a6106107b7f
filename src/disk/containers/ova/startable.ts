import type { ImageHints } from './properties.ts'

/** What an image made of a package says, in words that instances can be started by. */
export interface StartableHints {
  /** Glance's `min_ram`, MiB; 0: the package does not say. */
  readonly minRamMiB: number
  readonly properties: Readonly<Record<string, string>>
  /** What the package asks for and is not had, one sentence each. */
  readonly warnings: readonly string[]
}

/** No machine has more; numbers beyond it are slips, or bait. */
const MAX_RAM_MIB = 64 * 1024 * 1024
/** Adapters that instances have, and for the others the nearest: systems that were installed on those have drivers for these. */
const networkModels: Readonly<Record<string, string>> = {
  virtio: 'virtio',
  e1000: 'e1000',
  e1000e: 'e1000e',
  pcnet: 'e1000',
  vmxnet: 'e1000',
  VirtualVmxnet3: 'e1000e',
}

/**
 * Of SCSI controllers instances have virtio-scsi alone. A system that was installed on another one seldom has its driver, and nearly always
 * that of AHCI: it gets SATA.
 * @param given what was said beside the package: it holds, and nothing of the kind is asked for
 */
export function startable({ minRamMiB, properties }: ImageHints, given: Readonly<Record<string, string>> = {}): StartableHints {
  const asked = Object.fromEntries(Object.entries(properties).filter(([name]) => !Object.hasOwn(given, name)))
  const { hw_scsi_model: scsiModel, hw_vif_model: networkModel, ...rest } = asked
  const warnings: string[] = []
  const kept: Record<string, string> = { ...rest }
  const instead = (asked: string, given: string) =>
    warnings.push(`The package asks for ${asked}, which instances cannot have: they get ${given}.`)
  if (scsiModel === 'virtio-scsi') kept.hw_scsi_model = scsiModel
  else if (rest.hw_disk_bus === 'scsi' && given.hw_scsi_model === undefined) {
    kept.hw_disk_bus = 'sata'
    instead(
      scsiModel === undefined ? 'a SCSI controller of no model' : `the SCSI controller ${scsiModel} (hw_scsi_model)`,
      'SATA',
    )
  }
  if (networkModel !== undefined) {
    const model = Object.hasOwn(networkModels, networkModel) ? networkModels[networkModel] : undefined
    if (model !== undefined) kept.hw_vif_model = model
    if (model !== networkModel) instead(`the network adapter ${networkModel} (hw_vif_model)`, model ?? 'the usual one')
  }
  const isPlausible = minRamMiB <= MAX_RAM_MIB
  if (!isPlausible)
    warnings.push(`The package asks for ${minRamMiB} MiB of memory (min_ram), which no machine has: it is left out.`)
  return { minRamMiB: isPlausible ? minRamMiB : 0, properties: kept, warnings }
}
