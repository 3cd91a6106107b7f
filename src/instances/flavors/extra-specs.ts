import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { InstancePorts } from '../ports.ts'
import type { FlavorRecord } from '../records.ts'
import { changeFlavor } from './flavors.ts'

type Ports = Pick<InstancePorts, 'catalog'>

const MAX_SPECS = 128 // all of them stand in the flavor's record, and in that of each instance

/** Adds them, or replaces those of the same names. @throws ServiceError `denied`, `not-found`; `too-large` */
export function setExtraSpecs(
  ports: Ports,
  caller: Caller,
  id: string,
  specs: Readonly<Record<string, string>>,
): Promise<FlavorRecord> {
  return changeFlavor(ports, caller, id, (flavor) => {
    const extraSpecs = { ...flavor.extraSpecs, ...specs }
    if (Object.keys(extraSpecs).length > MAX_SPECS) {
      throw new ServiceError('too-large', `a flavor has at most ${MAX_SPECS} extra specs: remove some first`)
    }
    return { ...flavor, extraSpecs }
  })
}

/** @throws ServiceError `denied`; `not-found`, also where there is no such spec */
export function removeExtraSpec(ports: Ports, caller: Caller, id: string, name: string): Promise<FlavorRecord> {
  return changeFlavor(ports, caller, id, (flavor) => {
    extraSpecOf(flavor, name)
    const { [name]: _, ...extraSpecs } = flavor.extraSpecs
    return { ...flavor, extraSpecs }
  })
}

/** @throws ServiceError `not-found` */
export function extraSpecOf({ id, extraSpecs }: FlavorRecord, name: string): string {
  const value = Object.hasOwn(extraSpecs, name) ? extraSpecs[name] : undefined
  if (value !== undefined) return value
  throw new ServiceError('not-found', `Flavor ${id} has no extra specs with key ${name.slice(0, 80)}.`)
}
