import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import type { HypervisorAbilities } from '../hypervisor/hypervisor.ts'
import { instances, MAX_LISTED } from '../store.ts'

/** Guests seldom touch all that they have: Nova's `ram_allocation_ratio`. */
const MEMORY_RATIO = 1.5

/**
 * Whether this host holds so many more, asked inside `catalog.write`. What is off counts too: it may be started at any time.
 * @throws ServiceError `unavailable`, in the words that Nova has for it
 */
export async function assertHostHasRoom(
  documents: DocumentReader,
  { memoryBytes }: HypervisorAbilities,
  count: number,
  ramMiB: number,
): Promise<void> {
  const there = await instances.list(documents)
  const usedMiB = there.reduce((sum, { flavor }) => sum + flavor.ramMiB, 0)
  const mostMiB = Math.floor((memoryBytes / MiB) * MEMORY_RATIO)
  if (usedMiB + count * ramMiB > mostMiB) {
    throw new ServiceError(
      'unavailable',
      `No valid host was found: instances here have ${usedMiB} of ${mostMiB} MiB of memory, and ${count * ramMiB} more do not fit; take a smaller flavor, or delete instances`,
    )
  }
  if (there.length + count > MAX_LISTED) {
    throw new ServiceError(
      'unavailable',
      `No valid host was found: there are ${there.length} instances, and ${MAX_LISTED} is the limit`,
    )
  }
}
