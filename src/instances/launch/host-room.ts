import { ServiceError } from '../../base/errors.ts'
import { formatBytes, MiB } from '../../base/units.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import type { InstancePorts } from '../ports.ts'
import { instances, MAX_LISTED } from '../store.ts'

/** Guests seldom touch all that they have: Nova's `ram_allocation_ratio`. */
const MEMORY_RATIO = 1.5

export interface NeededRoom {
  readonly ramMiB: number
  /** What the guest may write. */
  readonly rootBytes: number
}

/**
 * How many of the wanted instances this host holds beside those that are there, asked inside `catalog.write`. What is off counts
 * too: it may be started at any time. What guests have not written yet is promised to them.
 * @param promisableBytes of its file system, measured before
 * @returns `wanted.most`, or what there is room for
 * @throws ServiceError `unavailable` where not even `wanted.least` fit, in the words that Nova has for it
 */
export async function countWithinHost(
  { disk, hypervisor }: Pick<InstancePorts, 'disk' | 'hypervisor'>,
  documents: DocumentReader,
  wanted: { readonly least: number; readonly most: number },
  each: NeededRoom,
  promisableBytes: number,
): Promise<number> {
  const there = await instances.list(documents)
  const usedMiB = there.reduce((sum, { flavor }) => sum + flavor.ramMiB, 0)
  const mostMiB = Math.floor((hypervisor.abilities.memoryBytes / MiB) * MEMORY_RATIO)
  const promisedBytes = await disk.promised(documents)
  const byMemory = countOf(mostMiB - usedMiB, each.ramMiB)
  const byDisk = countOf(promisableBytes - promisedBytes, each.rootBytes)
  const byNumber = MAX_LISTED - there.length
  const fitting = Math.min(wanted.most, byMemory, byDisk, byNumber)
  if (fitting >= wanted.least) return fitting
  const moreBytes = wanted.least * each.rootBytes
  const reason =
    byMemory < wanted.least
      ? `instances here have ${usedMiB} of ${mostMiB} MiB of memory, and ${wanted.least * each.ramMiB} more do not fit; take a smaller flavor, or delete instances`
      : byDisk < wanted.least
        ? `of ${formatBytes(Math.floor(promisableBytes))} that this host can promise to volumes and instances, ${formatBytes(promisedBytes)} are, and ${formatBytes(moreBytes)} more do not fit; take a smaller flavor, or delete instances or volumes`
        : `there are ${there.length} instances, and ${MAX_LISTED} is the limit`
  throw new ServiceError('unavailable', `No valid host was found: ${reason}`)
}

const countOf = (room: number, each: number): number => (each === 0 ? Number.POSITIVE_INFINITY : Math.floor(room / each))

/** What all guests may write to their own disks in the end. */
export const promisedToInstances = async (documents: DocumentReader): Promise<number> =>
  (await instances.list(documents)).reduce((sum, { rootBytes }) => sum + rootBytes, 0)
