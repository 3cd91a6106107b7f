import { ServiceError } from '../base/errors.ts'
import { MiB } from '../base/units.ts'
import type { CatalogReader, ProjectUsage } from '../store/catalog/catalog.ts'
import { type ImagePorts, type QuotaName, quotaNames } from './ports.ts'

export type ProjectQuota = Readonly<Record<QuotaName, number>>
/** What a step is about to use more of. */
export interface Demand {
  readonly images?: number
  readonly uploads?: number
  readonly storedBytes?: number
  readonly stagedBytes?: number
}

const unlimited = Object.fromEntries(quotaNames.map((name) => [name, -1])) as ProjectQuota

/**
 * The limits of a project, read before the transaction that holds its usage against them.
 * @param names those that are needed; the others count as unlimited
 */
export async function quotaOf(
  { limits, settings }: Pick<ImagePorts, 'limits' | 'settings'>,
  projectId: string | null,
  names: readonly QuotaName[] = quotaNames,
): Promise<ProjectQuota> {
  if (projectId === null) return unlimited
  const found = await Promise.all(
    names.map(async (name) => [name, (await limits.of(projectId, name)) ?? settings.defaultLimits[name]] as const),
  )
  return { ...unlimited, ...Object.fromEntries(found) }
}

/** Bytes that the project may still store; Infinity where nothing limits it. */
export const storableBytes = (quota: ProjectQuota, usage: ProjectUsage): number =>
  roomFor(quota.image_size_total, usage.totalBytes)
export const stageableBytes = (quota: ProjectQuota, usage: ProjectUsage): number =>
  roomFor(quota.image_stage_total, usage.stagedBytes)
const roomFor = (limitMiB: number, usedBytes: number): number =>
  limitMiB < 0 ? Infinity : Math.max(0, limitMiB * MiB - usedBytes)

/**
 * Asked inside `catalog.write`, where nobody else can take what is left.
 * @throws ServiceError `over-quota`, naming the limit
 */
export async function assertWithinQuota(
  { images }: CatalogReader,
  projectId: string | null,
  quota: ProjectQuota,
  demand: Demand,
): Promise<void> {
  if (projectId === null || quotaNames.every((name) => quota[name] < 0)) return
  const usage = await images.usage(projectId)
  const refuse = (name: QuotaName, used: number, wanted: number) => {
    throw new ServiceError(
      'over-quota',
      `the project may have ${quota[name]} of ${name} and uses ${used}: ${wanted} more do not fit; delete something, or ask an administrator`,
      { quota: name, limit: quota[name], used, wanted },
    )
  }
  const count = (name: QuotaName, used: number, wanted = 0) => {
    if (wanted > 0 && quota[name] >= 0 && used + wanted > quota[name]) refuse(name, used, wanted)
  }
  const bytes = (name: QuotaName, usedBytes: number, wantedBytes: number | undefined) => {
    if (wantedBytes === undefined || quota[name] < 0) return
    const full = usedBytes >= quota[name] * MiB && wantedBytes === 0 && usedBytes > 0
    if (full || usedBytes + wantedBytes > quota[name] * MiB) refuse(name, toMiB(usedBytes), toMiB(wantedBytes))
  }
  count('image_count_total', usage.imageCount, demand.images)
  count('image_count_uploading', usage.uploadingCount, demand.uploads)
  bytes('image_size_total', usage.totalBytes, demand.storedBytes)
  bytes('image_stage_total', usage.stagedBytes, demand.stagedBytes)
}

const toMiB = (bytes: number): number => Math.ceil(bytes / MiB)

/** For `info/usage`: bytes in MiB, as the limits are. */
export async function usageOfProject(
  ports: Pick<ImagePorts, 'limits' | 'settings' | 'catalog'>,
  projectId: string,
): Promise<Readonly<Record<QuotaName, { readonly usage: number; readonly limit: number }>>> {
  const [quota, usage] = [await quotaOf(ports, projectId), await ports.catalog.images.usage(projectId)]
  const used: Record<QuotaName, number> = {
    image_size_total: Math.floor(usage.totalBytes / MiB),
    image_stage_total: Math.floor(usage.stagedBytes / MiB),
    image_count_total: usage.imageCount,
    image_count_uploading: usage.uploadingCount,
  }
  return Object.fromEntries(quotaNames.map((name) => [name, { usage: used[name], limit: quota[name] }])) as Record<
    QuotaName,
    { usage: number; limit: number }
  >
}
