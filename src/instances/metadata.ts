import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { changeInstanceAs } from './change-instance.ts'
import { FORWARDS_KEY } from './launch/forwards.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceRecord } from './records.ts'

type Ports = Pick<InstancePorts, 'catalog' | 'now'>
type Metadata = Readonly<Record<string, string>>

/** Nova's quota. */
export const MAX_METADATA = 128

/** Adds them, or replaces those of the same names. @throws ServiceError as `replaceMetadata` */
export const mergeMetadata = (ports: Ports, caller: Caller, id: string, added: Metadata): Promise<InstanceRecord> =>
  change(ports, caller, id, (metadata) => ({ ...metadata, ...added }))

/**
 * The ports of the host that were given to an instance stay: a replacement that leaves them out keeps them.
 * @throws ServiceError `not-found`, `denied`; `conflict` where it is locked, or other ports are asked for; `over-quota`
 */
export const replaceMetadata = (ports: Ports, caller: Caller, id: string, metadata: Metadata): Promise<InstanceRecord> =>
  change(ports, caller, id, ({ [FORWARDS_KEY]: forwards }) => ({
    ...(forwards === undefined ? {} : { [FORWARDS_KEY]: forwards }),
    ...metadata,
  }))

/** @throws ServiceError also `not-found` where there is no such item */
export const removeMetadata = (ports: Ports, caller: Caller, id: string, name: string): Promise<InstanceRecord> =>
  change(ports, caller, id, (metadata) => {
    metadataItem(metadata, name)
    const { [name]: _, ...rest } = metadata
    return rest
  })

/** @throws ServiceError `not-found` */
export function metadataItem(metadata: Metadata, name: string): string {
  const value = Object.hasOwn(metadata, name) ? metadata[name] : undefined
  if (value !== undefined) return value
  throw new ServiceError('not-found', 'Metadata item was not found')
}

/** @throws ServiceError `over-quota` */
export function assertMetadata(metadata: Metadata): void {
  if (Object.keys(metadata).length <= MAX_METADATA) return
  throw new ServiceError('over-quota', `Maximum number of metadata items exceeds ${MAX_METADATA}: remove some`)
}

const change = (ports: Ports, caller: Caller, id: string, to: (metadata: Metadata) => Metadata): Promise<InstanceRecord> =>
  changeInstanceAs(ports, caller, id, 'change-metadata', (instance) => {
    const metadata = to(instance.metadata)
    assertMetadata(metadata)
    if (metadata[FORWARDS_KEY] !== instance.metadata[FORWARDS_KEY]) {
      throw new ServiceError('conflict', `${FORWARDS_KEY} is chosen when an instance is made, and stays: make another instance`)
    }
    return { metadata }
  })
