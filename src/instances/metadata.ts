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
 * @throws ServiceError `not-found`, `denied`; `conflict` where it is locked, or other ports are asked for; `over-quota`
 */
export const replaceMetadata = (ports: Ports, caller: Caller, id: string, metadata: Metadata): Promise<InstanceRecord> =>
  change(ports, caller, id, (_, instance) => withForwards(metadata, instance))

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

const change = (
  ports: Ports,
  caller: Caller,
  id: string,
  to: (metadata: Metadata, instance: InstanceRecord) => Metadata,
): Promise<InstanceRecord> =>
  changeInstanceAs(ports, caller, id, 'change-metadata', (instance) => {
    const metadata = to(instance.metadata, instance)
    assertMetadata(metadata)
    assertSameForwards(metadata, instance)
    return { metadata }
  })

/** @throws ServiceError `conflict` */
export function assertSameForwards(metadata: Metadata, instance: Pick<InstanceRecord, 'metadata'>): void {
  if (metadata[FORWARDS_KEY] === instance.metadata[FORWARDS_KEY]) return
  throw new ServiceError('conflict', `${FORWARDS_KEY} is chosen when an instance is made, and stays: make another instance`)
}

/** For a replacement that leaves them out: the ports of the host that were given to an instance stay. */
export const withForwards = (
  metadata: Metadata,
  { metadata: { [FORWARDS_KEY]: forwards } }: Pick<InstanceRecord, 'metadata'>,
): Metadata => ({
  ...(forwards === undefined ? {} : { [FORWARDS_KEY]: forwards }),
  ...metadata,
})
