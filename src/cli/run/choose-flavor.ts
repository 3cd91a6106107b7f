import { ServiceError } from '../../base/errors.ts'
import { formatBytes, GiB } from '../../base/units.ts'
import type { Flavor } from '../client/compute-client.ts'
import type { Image } from '../client/image-client.ts'

/** What a system of a distribution needs to start and to be set up; Debian's notes for its release say so of itself. */
const SYSTEM_MIB = 512

/** The one that is named, else the smallest that fits. @throws ServiceError `not-found` */
export const chooseFlavor = (flavors: readonly Flavor[], image: Image, wanted: string | undefined): Flavor =>
  wanted === undefined ? smallest(flavors, image) : named(flavors, wanted)

function named(flavors: readonly Flavor[], wanted: string): Flavor {
  const found = flavors.find(({ id, name }) => name === wanted || id === wanted)
  if (found) return found
  const names = flavors.map(({ name }) => name).join(', ')
  throw new ServiceError('not-found', `there is no flavor "${wanted}"; there are: ${names}`)
}

function smallest(flavors: readonly Flavor[], image: Image): Flavor {
  const diskBytes = Math.max(image.virtualBytes ?? image.sizeBytes ?? 0, image.minDiskGb * GiB)
  const ramMiB = Math.max(image.minRamMb, image.properties.os_distro === undefined ? 0 : SYSTEM_MIB)
  const [first] = flavors
    .filter((flavor) => flavor.ramMiB >= ramMiB && (flavor.diskGiB === 0 || flavor.diskGiB * GiB >= diskBytes))
    .sort((a, b) => a.ramMiB - b.ramMiB || a.diskGiB - b.diskGiB || a.vcpus - b.vcpus)
  if (first) return first
  throw new ServiceError(
    'not-found',
    `no flavor has ${ramMiB} MiB of memory and a disk of ${formatBytes(diskBytes)}; imprint flavor list`,
  )
}
