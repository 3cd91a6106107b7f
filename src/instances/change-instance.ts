import type { Caller } from '../base/caller.ts'
import type { CatalogWriter } from '../store/catalog/catalog.ts'
import { beginAction, endActions } from './actions/actions.ts'
import { findInstance } from './find-instance.ts'
import type { InstanceVerb } from './policy.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceRecord } from './records.ts'
import { instances } from './store.ts'

type Ports = Pick<InstancePorts, 'catalog' | 'now'>
export type InstanceChanges = Partial<Omit<InstanceRecord, 'id' | 'projectId' | 'updatedAt'>>

/**
 * Changes what the caller may change, by what stands there now, and notes who did it.
 * @throws ServiceError `not-found`, `denied`, `conflict`; what `change` throws
 */
export const changeInstanceAs = (
  { catalog, now }: Ports,
  caller: Caller,
  id: string,
  verb: InstanceVerb,
  change: (instance: InstanceRecord, documents: CatalogWriter['documents']) => InstanceChanges | Promise<InstanceChanges>,
): Promise<InstanceRecord> =>
  catalog.write(async ({ documents }) => {
    const instance = await findInstance(documents, caller, id, verb)
    const changed = { ...instance, ...(await change(instance, documents)), updatedAt: now() }
    await instances.put(documents, changed)
    await beginAction(documents, caller, changed, verb, changed.updatedAt)
    return changed
  })

/**
 * For work that was begun before: nobody is asked again. Where it ends a task, that is noted.
 * @param change null: it stays as it is
 * @returns as it is now; undefined where it is gone
 */
export const changeInstance = (
  { catalog, now }: Ports,
  id: string,
  change: (
    instance: InstanceRecord,
    documents: CatalogWriter['documents'],
  ) => InstanceChanges | null | Promise<InstanceChanges | null>,
): Promise<InstanceRecord | undefined> =>
  catalog.write(async ({ documents }) => {
    const instance = await instances.get(documents, id)
    const changes = instance && (await change(instance, documents))
    if (!instance || !changes) return instance
    const changed = { ...instance, ...changes, updatedAt: now() }
    await instances.put(documents, changed)
    await endActions(documents, instance, changed, changed.updatedAt)
    return changed
  })
