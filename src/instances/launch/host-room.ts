import { ServiceError } from '../../base/errors.ts'
import { formatBytes, MiB } from '../../base/units.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import { hostNameOf } from '../hosts.ts'
import { abilitiesOf } from '../hypervisor/machine-host.ts'
import type { InstancePorts, NamedHost } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { instances, jobs, MAX_LISTED } from '../store.ts'

/** Guests seldom touch all that they have: Nova's `ram_allocation_ratio`. */
const MEMORY_RATIO = 1.5

export interface NeededRoom {
  readonly ramMiB: number
  /** What the guest may write. */
  readonly rootBytes: number
}

/**
 * Where as many of the wanted instances go as there is room for beside those that are there, asked inside `catalog.write`: each to the host
 * with the most memory left. What is off counts too: it may be started at any time. What guests have not written yet is promised to them.
 * @param hosts those that may have them, and are up
 * @param promisableBytes of the file system that they write to, measured before
 * @returns the host of each, at most `wanted.most`
 * @throws ServiceError `unavailable` where not even `wanted.least` fit, in the words that Nova has for it
 */
export async function placesWithinHosts(
  { disk, ...ports }: Pick<InstancePorts, 'disk' | 'hosts'>,
  documents: DocumentReader,
  wanted: { readonly least: number; readonly most: number },
  each: NeededRoom,
  { hosts, promisableBytes }: { readonly hosts: readonly NamedHost[]; readonly promisableBytes: number },
): Promise<readonly NamedHost[]> {
  const there = await instances.list(documents)
  const rooms = hosts.map((host) =>
    roomOf(
      host,
      there.filter((instance) => hostNameOf(ports, instance) === host.name),
    ),
  )
  const promisedBytes = await disk.promised(documents)
  const byDisk = countOf(promisableBytes - promisedBytes, each.rootBytes)
  const byNumber = MAX_LISTED - there.length
  const places = placed(rooms, Math.min(wanted.most, byDisk, byNumber), each.ramMiB)
  if (places.length >= wanted.least) return places
  const moreBytes = wanted.least * each.rootBytes
  const reason =
    Math.min(byDisk, byNumber) >= wanted.least
      ? memoryProblem(rooms, wanted.least * each.ramMiB)
      : byDisk < wanted.least
        ? diskProblem(promisableBytes, promisedBytes, moreBytes)
        : `there are ${there.length} instances, and ${MAX_LISTED} is the limit`
  throw new ServiceError('unavailable', `No valid host was found: ${reason}`)
}

interface Room {
  readonly host: NamedHost
  readonly usedMiB: number
  readonly mostMiB: number
}

function roomOf(host: NamedHost, there: readonly InstanceRecord[]): Room {
  const usedMiB = there.reduce((sum, { flavor }) => sum + flavor.ramMiB, 0)
  return { host, usedMiB, mostMiB: Math.floor(((abilitiesOf(host)?.memoryBytes ?? 0) / MiB) * MEMORY_RATIO) }
}

function placed(rooms: readonly Room[], count: number, ramMiB: number): readonly NamedHost[] {
  const left = rooms.map(({ host, usedMiB, mostMiB }) => ({ host, leftMiB: mostMiB - usedMiB }))
  const places: NamedHost[] = []
  while (places.length < count) {
    const [roomiest] = left.filter(({ leftMiB }) => ramMiB === 0 || leftMiB >= ramMiB).sort((a, b) => b.leftMiB - a.leftMiB)
    if (!roomiest) break
    roomiest.leftMiB -= ramMiB
    places.push(roomiest.host)
  }
  return places
}

function memoryProblem(rooms: readonly Room[], moreMiB: number): string {
  if (rooms.length === 0) return 'none that may have it answers; see whether the agents of the hosts run'
  const [usedMiB, mostMiB] = [sum(rooms.map((room) => room.usedMiB)), sum(rooms.map((room) => room.mostMiB))]
  return `instances here have ${usedMiB} of ${mostMiB} MiB of memory, and ${moreMiB} more do not fit; take a smaller flavor, or delete instances`
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0)

const countOf = (room: number, each: number): number => (each === 0 ? Number.POSITIVE_INFINITY : Math.floor(room / each))

const diskProblem = (promisableBytes: number, promisedBytes: number, moreBytes: number): string =>
  `of ${formatBytes(Math.floor(promisableBytes))} that this host can promise to volumes and instances, ${formatBytes(promisedBytes)} are, and ${formatBytes(moreBytes)} more do not fit; take a smaller flavor or image, delete instances or volumes, or let the host promise more (the setting volumePromisePercent)`

/**
 * Whether a guest that is there may write so much more than before, asked inside `catalog.write`. What it has is not asked for again.
 * @param promisableBytes measured before
 * @throws ServiceError `unavailable`, in the words that Nova has for it
 */
export async function assertRoomToGrow(
  { disk }: Pick<InstancePorts, 'disk'>,
  documents: DocumentReader,
  promisableBytes: number,
  moreBytes: number,
): Promise<void> {
  if (moreBytes <= 0) return
  const promisedBytes = await disk.promised(documents)
  if (promisedBytes + moreBytes <= promisableBytes) return
  throw new ServiceError('unavailable', `No valid host was found: ${diskProblem(promisableBytes, promisedBytes, moreBytes)}`)
}

/** What all guests may write to their own disks in the end. */
export async function promisedToInstances(documents: DocumentReader): Promise<number> {
  let bytes = 0
  for (const instance of await instances.list(documents)) bytes += await promisedTo(documents, instance)
  return bytes
}

/** One that is being rebuilt has been promised the larger of what it has and what it gets. */
async function promisedTo(documents: DocumentReader, { id, rootBytes, taskState }: InstanceRecord): Promise<number> {
  const job = taskState === 'rebuilding' ? await jobs.get(documents, id) : undefined
  return job?.kind === 'rebuild' ? Math.max(rootBytes, job.becomes.rootBytes) : rootBytes
}
