import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { Catalog, CatalogReader, CatalogWriter, StoredDocument } from '../../store/catalog/catalog.ts'

/**
 * Metadata definitions: what a property that may stand on an image, a flavor or a volume means, which values it takes, and
 * on which kinds of resource it makes sense. User interfaces offer them; nothing else in the service depends on them.
 *
 * A namespace with all that is in it is one document, so a change to it is one write, and deleting it leaves nothing behind.
 * Names are compared without regard to case, as Glance's database compares them.
 */
export interface Namespace {
  readonly namespace: string
  readonly displayName: string | null
  readonly description: string | null
  readonly visibility: 'public' | 'private'
  readonly protected: boolean
  readonly owner: string
  /** Milliseconds since 1970, as all times here. */
  readonly createdAt: number
  readonly updatedAt: number
  readonly associations: readonly Association[]
  readonly properties: readonly PropertyDefinition[]
  readonly objects: readonly ObjectDefinition[]
  readonly tags: readonly TagDefinition[]
  /** For the next thing that is made in here: things made in the same second are told apart by it. */
  readonly nextOrdinal: number
  /** The edition of the standard set that it came with; null once somebody changed it, and for all others. */
  readonly standardEdition: number | null
}

export interface Association {
  readonly name: string
  readonly prefix: string | null
  readonly propertiesTarget: string | null
  readonly createdAt: number
  readonly updatedAt: number
}
export interface PropertyDefinition {
  readonly name: string
  readonly schema: PropertySchema
}
export interface ObjectDefinition {
  readonly name: string
  readonly description: string | null
  readonly required: readonly string[]
  readonly properties: readonly { readonly key: string; readonly schema: PropertySchema }[]
  readonly createdAt: number
  readonly updatedAt: number
}
export interface TagDefinition {
  readonly name: string
  readonly ordinal: number
  readonly createdAt: number
  readonly updatedAt: number
}
/** What a property takes, in the form in which it is stored and shown; members that were not given are absent. */
export type PropertySchema = Readonly<Record<string, unknown>>

export interface ResourceType {
  readonly name: string
  readonly createdAt: number
  readonly updatedAt: number
}

/** What the use cases of this folder need. */
export interface MetadefPorts {
  readonly catalog: Pick<Catalog, 'documents' | 'write'>
  /** Milliseconds since 1970; absent: the clock of the machine. */
  readonly now?: () => number
}

export const NAMESPACE_KIND = 'metadef-namespace'
export const RESOURCE_TYPE_KIND = 'metadef-resource-type'

const MAX_NAMESPACES = 1000 // a list of them is sorted in memory
const MAX_MEMBERS = 2000 // properties, objects, tags, associations: of each
const MAX_NAMESPACE_BYTES = 512 * 1024 // as JSON: a namespace is read and written whole

/** The key under which a name is stored: two names that differ only in case are the same. */
export const keyOf = (name: string): string => name.toLowerCase()
export const sameName = (a: string, b: string): boolean => keyOf(a) === keyOf(b)
/** A name as it may stand in a message: whoever sent it may have sent a lot of it. */
export const quoted = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)

/** @throws ServiceError `invalid-request` for a name that no path could address */
export function assertName(name: string, what: string): void {
  if (name === '' || name.includes('/')) {
    throw new ServiceError('invalid-request', `the name of ${what} must not be empty and must have no slash in it`)
  }
}

export const isVisible = (namespace: Namespace, caller: Caller): boolean =>
  caller.isAdmin || namespace.visibility === 'public' || (caller.projectId !== null && namespace.owner === caller.projectId)

/** @throws ServiceError `denied`: definitions are written by administrators alone, as in Glance */
export function assertMayWrite(caller: Caller, action: string): void {
  if (!caller.isAdmin) {
    throw new ServiceError('denied', `you may not ${action}: metadata definitions are kept by administrators`)
  }
}

export function assertUnprotected(namespace: Namespace, what: string): void {
  if (namespace.protected) {
    throw new ServiceError(
      'denied',
      `${what} cannot be deleted: namespace ${quoted(namespace.namespace)} is protected; update it with protected=false first`,
    )
  }
}

/** What is absent and what is hidden from this caller give the same answer. @throws ServiceError `not-found` */
export async function findNamespace(
  reader: Pick<CatalogReader, 'documents'>,
  caller: Caller,
  name: string,
): Promise<StoredDocument<Namespace>> {
  const found = await reader.documents.get<Namespace>(NAMESPACE_KIND, keyOf(name))
  if (!found || !isVisible(found.body, caller)) throw notFound('metadata namespace', name)
  return found
}
export const notFound = (what: string, name: string): ServiceError =>
  new ServiceError('not-found', `there is no ${what} ${quoted(name)} here`)

/** @throws ServiceError `too-large` for a namespace that has outgrown its limits */
export function assertWithinLimits(namespace: Namespace): void {
  for (const [what, count] of [
    ['properties', namespace.properties.length],
    ['objects', namespace.objects.length],
    ['tags', namespace.tags.length],
    ['resource type associations', namespace.associations.length],
  ] as const) {
    if (count > MAX_MEMBERS) {
      throw new ServiceError('too-large', `a namespace holds at most ${MAX_MEMBERS} ${what}; this would be ${count}`, { count })
    }
  }
  const bytes = Buffer.byteLength(JSON.stringify(namespace))
  if (bytes > MAX_NAMESPACE_BYTES) {
    const max = MAX_NAMESPACE_BYTES
    throw new ServiceError('too-large', `a namespace and all in it take at most ${max} bytes; this would take ${bytes}`, {
      bytes,
    })
  }
}

export async function assertRoomForNamespace(tx: CatalogWriter): Promise<void> {
  const there = await tx.documents.list(NAMESPACE_KIND, { limit: MAX_NAMESPACES })
  if (there.length >= MAX_NAMESPACES) {
    throw new ServiceError('too-large', `there are ${MAX_NAMESPACES} metadata namespaces, and no more fit; delete one first`)
  }
}

/**
 * Changes one namespace, alone: `change` gets its newest state and returns the next one.
 * @throws ServiceError `not-found`, `denied`, `too-large`; errors of `change` pass through, and nothing is written
 */
export async function changeNamespace<T>(
  { catalog, now = Date.now }: MetadefPorts,
  caller: Caller,
  name: string,
  action: string,
  change: (namespace: Namespace, at: number, tx: CatalogWriter) => Promise<{ readonly next: Namespace; readonly result: T }>,
): Promise<T> {
  return catalog.write(async (tx) => {
    const { body, version, key } = await findNamespace(tx, caller, name)
    assertMayWrite(caller, action)
    const { next, result } = await change(body, now(), tx)
    const kept = { ...next, standardEdition: null }
    assertWithinLimits(kept)
    await tx.documents.put(NAMESPACE_KIND, key, kept, { expect: version })
    return result
  })
}
