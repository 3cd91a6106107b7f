import { ServiceError } from '../../base/errors.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import { attachments } from '../store.ts'

/**
 * Memory of a guest knows what was on its volumes at that moment: going on from it over volumes of another would destroy them.
 * @throws ServiceError `conflict`
 */
export async function assertNoVolumes(documents: DocumentReader, instanceId: string): Promise<void> {
  const there = await attachments.ofInstance(documents, instanceId)
  if (there.length === 0) return
  const message = `instance ${instanceId} has ${there.length} volumes, whose content memory relies on: detach them, or leave memory out`
  throw new ServiceError('conflict', message, { instanceId })
}
