import { hash } from 'node:crypto'
import type { ImageRecord } from './catalog.ts'
import { audienceOf } from './sql-schema.ts'

/**
 * Tags and properties are found through posting lists: for each (scope, tag) and (scope, property, value) the images that
 * have it, newest first. A scope is everybody's images, one owner's, or one audience's (public, community), so that a list
 * filtered by tag costs the same whoever asks. A posting list is named by the first 128 bits of a SHA-256: values may be long.
 */
export type TermScope = 'all' | `owner:${string}` | `audience:${string}`

const TERM_BYTES = 16 // two values that share a name would need 2^64 tries

const termName = (scope: TermScope, kind: 'tag' | 'property', words: readonly string[]): Uint8Array =>
  new Uint8Array(hash('sha256', JSON.stringify([scope, kind, ...words]), 'buffer').subarray(0, TERM_BYTES))

export const tagTerm = (scope: TermScope, tag: string): Uint8Array => termName(scope, 'tag', [tag])
export const propertyTerm = (scope: TermScope, name: string, value: string): Uint8Array =>
  termName(scope, 'property', [name, value])

export function termScopes(image: Pick<ImageRecord, 'owner' | 'visibility'>): TermScope[] {
  const audience = audienceOf(image)
  return [
    'all',
    ...(image.owner === null ? [] : [`owner:${image.owner}` as const]),
    ...(audience === null ? [] : [`audience:${audience}` as const]),
  ]
}

/** Every posting list that `image` stands in. */
export function termsOf(image: ImageRecord): Uint8Array[] {
  return termScopes(image).flatMap((scope) => [
    ...image.tags.map((tag) => tagTerm(scope, tag)),
    ...Object.entries(image.properties).map(([name, value]) => propertyTerm(scope, name, value)),
  ])
}
