import type { Caller } from '../base/caller.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { authorize, type InstanceVerb, noSuchInstance } from './policy.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceRecord } from './records.ts'
import { instances } from './store.ts'

/**
 * The instance, if the caller may do `verb` to it now. Asked again inside the transaction that acts on the answer.
 * @throws ServiceError `not-found`, `denied`, `conflict`
 */
export async function findInstance(
  documents: DocumentReader,
  caller: Caller,
  id: string,
  verb: InstanceVerb,
): Promise<InstanceRecord> {
  const instance = await instances.get(documents, id.toLowerCase())
  if (!instance) throw noSuchInstance(id)
  authorize(caller, verb, instance)
  return instance
}

/** @throws ServiceError `not-found` */
export const showInstance = ({ catalog }: Pick<InstancePorts, 'catalog'>, caller: Caller, id: string): Promise<InstanceRecord> =>
  findInstance(catalog.documents, caller, id, 'show')
