import { ServiceError } from '../base/errors.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { type QuotaName, quotaNames, type VolumePorts } from './ports.ts'
import { snapshots, volumes } from './store.ts'

export type ProjectQuota = Readonly<Record<QuotaName, number>>
/** Nobody uses up the limit of a single volume. */
export type ProjectUse = Readonly<Record<Exclude<QuotaName, 'per_volume_gigabytes'>, number>>

/** The limits of a project, read before the transaction that holds its use against them. */
export async function quotaOf(
  { limits, settings }: Pick<VolumePorts, 'limits' | 'settings'>,
  projectId: string,
): Promise<ProjectQuota> {
  const found = await Promise.all(
    quotaNames.map(async (name) => [name, (await limits.of(projectId, name)) ?? settings.defaultLimits[name]] as const),
  )
  return Object.fromEntries(found) as ProjectQuota
}

/** Volumes and snapshots count until nothing of them is left, those in error too, as in Cinder. */
export async function useOf(documents: DocumentReader, projectId: string): Promise<ProjectUse> {
  const [mine, theirs] = [await volumes.ofProject(documents, projectId), await snapshots.ofProject(documents, projectId)]
  const gigabytes = mine.reduce((sum, { sizeGiB, growingTo }) => sum + Math.max(sizeGiB, growingTo ?? 0), 0)
  return {
    volumes: mine.length,
    snapshots: theirs.length,
    gigabytes: gigabytes + theirs.reduce((sum, { sizeGiB }) => sum + sizeGiB, 0),
  }
}

/**
 * Asked inside `catalog.write`, where nobody else can take what is left.
 * @param more what is wanted beside what there is
 * @param largestGiB the volume that it makes or becomes
 * @throws ServiceError `over-quota`, naming the limit that stands in the way
 */
export async function assertWithinQuota(
  documents: DocumentReader,
  projectId: string,
  quota: ProjectQuota,
  more: Partial<ProjectUse>,
  largestGiB: number,
): Promise<void> {
  const most = quota.per_volume_gigabytes
  if (most >= 0 && largestGiB > most) {
    const message = `Requested volume size ${largestGiB}G is larger than maximum allowed limit ${most}G.`
    throw new ServiceError('over-quota', message, { per_volume_gigabytes: most })
  }
  const use = await useOf(documents, projectId)
  for (const name of ['volumes', 'snapshots', 'gigabytes'] as const) {
    const wanted = more[name] ?? 0
    if (wanted === 0 || quota[name] < 0 || use[name] + wanted <= quota[name]) continue
    throw new ServiceError(
      'over-quota',
      `${exceeded[name]} Requested ${wanted}, ${quota[name]} is the quota for "${name}" and ${use[name]} has been consumed; delete volumes or snapshots, or ask an administrator`,
      { [name]: quota[name] },
    )
  }
}

/** Cinder's sentences. */
const exceeded: Readonly<Record<keyof ProjectUse, string>> = {
  volumes: 'VolumeLimitExceeded: Maximum number of volumes allowed exceeded.',
  snapshots: 'SnapshotLimitExceeded: Maximum number of snapshots allowed exceeded.',
  gigabytes: 'VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota.',
}
