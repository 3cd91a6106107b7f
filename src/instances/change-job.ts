import type { InstancePorts } from './ports.ts'
import type { InstanceJob } from './records.ts'
import { jobs } from './store.ts'

type JobOf<Kind extends InstanceJob['kind']> = Extract<InstanceJob, { readonly kind: Kind }>

/**
 * Notes how far the job of an instance is.
 * @returns as it is now
 */
export const changeJob = <Kind extends InstanceJob['kind']>(
  { catalog }: Pick<InstancePorts, 'catalog'>,
  id: string,
  kind: Kind,
  change: (job: JobOf<Kind>) => Partial<JobOf<Kind>>,
): Promise<JobOf<Kind>> =>
  catalog.write(async ({ documents }) => {
    const job = await jobs.get(documents, id)
    if (job?.kind !== kind) throw new Error(`instance ${id} has no ${kind} under way`)
    const changed = { ...job, ...change(job as JobOf<Kind>) } as JobOf<Kind>
    await jobs.put(documents, id, changed)
    return changed
  })
