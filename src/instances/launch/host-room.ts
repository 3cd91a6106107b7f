import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import type { HypervisorAbilities } from '../hypervisor/hypervisor.ts'
import { instances, MAX_LISTED } from '../store.ts'

/** Guests seldom touch all that they have: Nova's `ram_allocation_ratio`. */
const MEMORY_RATIO = 1.5

/**
 * How many of the wanted instances this host holds beside those that are there, asked inside `catalog.write`. What is off counts
 * too: it may be started at any time.
 * @returns `wanted.most`, or what there is room for
 * @throws ServiceError `unavailable` where not even `wanted.least` fit, in the words that Nova has for it
 */
export async function countWithinHost(
  documents: DocumentReader,
  { memoryBytes }: HypervisorAbilities,
  wanted: { readonly least: number; readonly most: number },
  ramMiB: number,
): Promise<number> {
  const there = await instances.list(documents)
  const usedMiB = there.reduce((sum, { flavor }) => sum + flavor.ramMiB, 0)
  const mostMiB = Math.floor((memoryBytes / MiB) * MEMORY_RATIO)
  const byMemory = ramMiB === 0 ? wanted.most : Math.floor((mostMiB - usedMiB) / ramMiB)
  const byNumber = MAX_LISTED - there.length
  const fitting = Math.min(wanted.most, byMemory, byNumber)
  if (fitting >= wanted.least) return fitting
  const reason =
    byMemory < wanted.least
      ? `instances here have ${usedMiB} of ${mostMiB} MiB of memory, and ${wanted.least * ramMiB} more do not fit; take a smaller flavor, or delete instances`
      : `there are ${there.length} instances, and ${MAX_LISTED} is the limit`
  throw new ServiceError('unavailable', `No valid host was found: ${reason}`)
}
