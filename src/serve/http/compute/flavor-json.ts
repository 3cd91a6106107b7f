import type { FlavorRecord } from '../../../instances/records.ts'
import type { Call } from './route.ts'

/** No swap at all was an empty text until version 2.75. */
export const emptySwap = (minor: number): '' | 0 => (minor < 75 ? '' : 0)

export const flavorLinks = ({ base, bookmarks }: Call, id: string) => [
  { rel: 'self', href: `${base}/flavors/${id}` },
  { rel: 'bookmark', href: `${bookmarks}/flavors/${id}` },
]

export const flavorSummary = (call: Call, { id, name, description }: FlavorRecord) => ({
  id,
  name,
  ...(call.minor >= 55 ? { description } : {}),
  links: flavorLinks(call, id),
})

export const flavorJson = (call: Call, flavor: FlavorRecord) => ({
  ...flavorSummary(call, flavor),
  ram: flavor.ramMiB,
  disk: flavor.diskGiB,
  vcpus: flavor.vcpus,
  swap: flavor.swapMiB || emptySwap(call.minor),
  rxtx_factor: 1,
  'OS-FLV-EXT-DATA:ephemeral': flavor.ephemeralGiB,
  'OS-FLV-DISABLED:disabled': false,
  'os-flavor-access:is_public': flavor.isPublic,
  ...(call.minor >= 61 ? { extra_specs: flavor.extraSpecs } : {}),
})
