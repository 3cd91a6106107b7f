import { ServiceError } from '../base/errors.ts'
import type { Metadata } from './records.ts'

/** Cinder's quota `metadata_items`. */
export const MAX_METADATA = 128

/** @throws ServiceError `too-large` */
export function assertMetadata(metadata: Metadata): void {
  if (Object.keys(metadata).length <= MAX_METADATA) return
  throw new ServiceError('too-large', `Metadata property count exceeds the limit of ${MAX_METADATA}: remove some`)
}

/** Adds them, or replaces those of the same names. @throws ServiceError `too-large` */
export function merged(metadata: Metadata, added: Metadata): Metadata {
  const all = { ...metadata, ...added }
  assertMetadata(all)
  return all
}

/** @throws ServiceError `not-found` where there is no such item */
export function without(metadata: Metadata, name: string): Metadata {
  metadataItem(metadata, name)
  const { [name]: _, ...rest } = metadata
  return rest
}

/** @throws ServiceError `not-found` */
export function metadataItem(metadata: Metadata, name: string): string {
  const value = Object.hasOwn(metadata, name) ? metadata[name] : undefined
  if (value !== undefined) return value
  throw new ServiceError(
    'not-found',
    `Metadata item was not found: there is none with the key ${JSON.stringify(name.slice(0, 80))}`,
  )
}
