import { ServiceError } from '../base/errors.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { type InstancePorts, type QuotaName, quotaNames } from './ports.ts'
import { instances } from './store.ts'

export type ProjectQuota = Readonly<Record<QuotaName, number>>
export type ProjectUse = Readonly<Record<QuotaName, number>>

/** The limits of a project, read before the transaction that holds its use against them. */
export async function quotaOf(
  { limits, settings }: Pick<InstancePorts, 'limits' | 'settings'>,
  projectId: string,
): Promise<ProjectQuota> {
  const found = await Promise.all(
    quotaNames.map(async (name) => [name, (await limits.of(projectId, name)) ?? settings.defaultLimits[name]] as const),
  )
  return Object.fromEntries(found) as ProjectQuota
}

/** Instances count until nothing of them is left, those in error too, as in Nova. */
export async function useOf(documents: DocumentReader, projectId: string): Promise<ProjectUse> {
  const use = { instances: 0, cores: 0, ram: 0 }
  for (const { flavor } of await instances.ofProject(documents, projectId)) {
    use.instances += 1
    use.cores += flavor.vcpus
    use.ram += flavor.ramMiB
  }
  return use
}

/**
 * How many of the wanted instances fit, asked inside `catalog.write`, where nobody else can take what is left.
 * @param each what one of them takes
 * @returns `wanted.most`, or what is left of it
 * @throws ServiceError `over-quota` where not even `wanted.least` fit, naming each limit that stands in the way
 */
export async function countWithinQuota(
  documents: DocumentReader,
  projectId: string,
  quota: ProjectQuota,
  each: ProjectUse,
  wanted: { readonly least: number; readonly most: number },
): Promise<number> {
  if (quotaNames.every((name) => quota[name] < 0)) return wanted.most
  const use = await useOf(documents, projectId)
  const room = (name: QuotaName): number =>
    quota[name] < 0 || each[name] === 0 ? wanted.most : Math.floor((quota[name] - use[name]) / each[name])
  const fitting = Math.min(wanted.most, ...quotaNames.map(room))
  if (fitting >= wanted.least) return fitting
  const short = quotaNames.filter((name) => room(name) < wanted.least)
  const list = (value: (name: QuotaName) => number) => short.map(value).join(', ')
  throw new ServiceError(
    'over-quota',
    `Quota exceeded for ${short.join(', ')}: Requested ${list((name) => each[name] * wanted.least)}, but already used ${list((name) => use[name])} of ${list((name) => quota[name])} ${short.join(', ')}; delete instances, or ask an administrator`,
    Object.fromEntries(short.map((name) => [name, quota[name]])),
  )
}
