import { GiB } from '../../base/units.ts'
import { type Appliance, startable } from '../../disk/containers/index.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import { MAX_PROPERTIES } from '../attributes.ts'

/** What a package says of the machine that its disk is for, as changes to the image. */
export interface DescribedHardware {
  readonly changes: Partial<Pick<ImageRecord, 'properties' | 'minDisk' | 'minRam'>>
  readonly warnings: readonly string[]
}

/** Of those that the descriptor gives rise to, which are as many as its author likes. */
const MAX_WARNINGS = 20

/**
 * What the image says already stays as it is.
 * @param virtualBytes of the disk, which is what a machine needs room for, whatever the package says
 * @param maySet whether who imports may set such a property
 */
export function describedHardware(
  { hints, warnings }: Appliance,
  image: Pick<ImageRecord, 'properties' | 'minDisk' | 'minRam'>,
  virtualBytes: number | null,
  maySet: (name: string) => boolean,
): DescribedHardware {
  const found = startable(hints, image.properties)
  const all = Object.entries(found.properties)
  const allowed = all.filter(([name]) => maySet(name))
  const properties = { ...Object.fromEntries(allowed), ...image.properties }
  const areTooMany = Object.keys(properties).length > MAX_PROPERTIES
  const leftOut = areTooMany ? all : all.filter(([name]) => !maySet(name))
  const names = leftOut.map(([name]) => name).join(', ')
  const why = areTooMany ? `the image has ${MAX_PROPERTIES} properties at most` : 'they are protected'
  const about = [...found.warnings, ...(names === '' ? [] : [`Of the package, ${names} were left out: ${why}.`])]
  return {
    changes: {
      ...(areTooMany ? {} : { properties }),
      minDisk: image.minDisk || Math.ceil((virtualBytes ?? 0) / GiB),
      minRam: image.minRam || found.minRamMiB,
    },
    warnings: [...about, ...warnings.slice(0, MAX_WARNINGS)],
  }
}
