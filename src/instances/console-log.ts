import type { Caller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import { findInstance } from './find-instance.ts'
import type { InstancePorts } from './ports.ts'

/** Nova's limit: the newest 100 KiB. */
const MAX_BYTES = 100 * 1024

/**
 * What the guest wrote to its first serial port.
 * @param lines the last so many; null: all that there are
 * @throws ServiceError `not-found`, `denied`; `conflict` where it has no machine yet
 */
export async function consoleLog(
  { catalog, hypervisor }: Pick<InstancePorts, 'catalog' | 'hypervisor'>,
  caller: Caller,
  id: string,
  lines: number | null,
): Promise<string> {
  const instance = await findInstance(catalog.documents, caller, id, 'console-log')
  const text = Buffer.from(await bytesOf(hypervisor, instance.id)).toString('utf8')
  if (lines === null) return text
  const all = text.split('\n')
  const isWhole = all.at(-1) === '' // the last line has its end
  return all.slice(-(lines + (isWhole ? 1 : 0)) || all.length).join('\n')
}

async function bytesOf(hypervisor: InstancePorts['hypervisor'], id: string): Promise<Uint8Array> {
  try {
    return await hypervisor.consoleLog(id, MAX_BYTES)
  } catch (cause) {
    if (!isServiceError(cause, 'not-found')) throw cause
    throw new ServiceError('conflict', `Instance ${id} is not ready: it has no machine yet, or none any more`, {}, { cause })
  }
}
