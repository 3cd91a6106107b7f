import { ServiceError } from '../../base/errors.ts'
import { GiB, MiB } from '../../base/units.ts'
import type { HypervisorAbilities } from '../hypervisor/hypervisor.ts'
import type { BootImage } from '../ports.ts'
import type { FlavorRecord } from '../records.ts'

type Size = Pick<FlavorRecord, 'name' | 'vcpus' | 'ramMiB' | 'diskGiB' | 'ephemeralGiB' | 'swapMiB'>

/**
 * Whether the image can start on the flavor on this host, asked before anything is recorded.
 * @param others flavors that the caller may use: the smallest that fits is named in a refusal
 * @throws ServiceError `invalid-request`, Nova's sentence first
 */
export function assertFits(image: BootImage, flavor: Size, abilities: HypervisorAbilities, others: readonly Size[]): void {
  const problem = misfit(image, flavor, abilities)
  if (problem === null) return
  const [nearest] = others.filter((other) => misfit(image, other, abilities) === null).sort(bySize)
  const advice = nearest ? `the smallest flavor that fits is ${nearest.name}` : 'no flavor that you may use fits'
  throw new ServiceError('invalid-request', `${problem}; ${advice}`, {
    imageId: image.id,
    flavor: flavor.name,
    nearest: nearest?.name ?? null,
  })
}

const bySize = (a: Size, b: Size): number =>
  a.ramMiB - b.ramMiB || a.diskGiB - b.diskGiB || a.vcpus - b.vcpus || (a.name < b.name ? -1 : 1)

/** Bytes of the root disk: the flavor's, or the image's own where the flavor says 0; whole sectors. */
export const rootBytesOf = ({ diskBytes }: BootImage, { diskGiB }: Pick<Size, 'diskGiB'>): number =>
  diskGiB === 0 ? Math.ceil(diskBytes / 512) * 512 : diskGiB * GiB

function misfit(image: BootImage, flavor: Size, abilities: HypervisorAbilities): string | null {
  if (flavor.ramMiB < image.minRam) {
    return `Flavor's memory is too small for requested image: ${flavor.name} has ${flavor.ramMiB} MiB, and the image needs ${image.minRam}`
  }
  if (flavor.diskGiB !== 0 && flavor.diskGiB * GiB < image.diskBytes) {
    return `Flavor's disk is too small for requested image. Flavor disk is ${flavor.diskGiB * GiB} bytes, image is ${image.diskBytes} bytes`
  }
  if (flavor.diskGiB !== 0 && flavor.diskGiB < image.minDisk) {
    return `Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is ${flavor.diskGiB} GiB, minimum size is ${image.minDisk} GiB`
  }
  if (flavor.ephemeralGiB > 0 || flavor.swapMiB > 0) {
    return `flavor ${flavor.name} has an ephemeral or a swap disk, and instances here have a root disk only`
  }
  if (flavor.vcpus > abilities.maxCpus) {
    return `flavor ${flavor.name} has ${flavor.vcpus} vCPUs, and a machine on this host has at most ${abilities.maxCpus}`
  }
  if (flavor.ramMiB * MiB > abilities.memoryBytes) {
    return `flavor ${flavor.name} has ${flavor.ramMiB} MiB of memory, and this host has ${Math.floor(abilities.memoryBytes / MiB)}`
  }
  return null
}
