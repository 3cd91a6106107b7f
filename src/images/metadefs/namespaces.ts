import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { associationFrom, rememberResourceType } from './associations.ts'
import {
  assertMayWrite,
  assertName,
  assertRoomForNamespace,
  assertUnprotected,
  assertWithinLimits,
  findNamespace,
  isVisible,
  keyOf,
  type MetadefPorts,
  NAMESPACE_KIND,
  type Namespace,
  quoted,
  sameName,
} from './metadef.ts'
import { objectFrom } from './objects.ts'
import { inOrder, type Order } from './order.ts'
import { propertiesFrom } from './properties.ts'
import { checkSchema } from './schema-check.ts'
import { namespaceSchema } from './schemas.ts'
import { tagNamesFrom, withTags } from './tags.ts'

export interface NamespaceQuery extends Order<NamespaceSortKey> {
  readonly limit: number
  /** The list goes on after this namespace. */
  readonly marker?: string
  readonly visibility?: 'public' | 'private'
  /** Associated with any of these. */
  readonly resourceTypes?: readonly string[]
}
const sortValues = {
  created_at: ({ createdAt }) => createdAt,
  updated_at: ({ updatedAt }) => updatedAt,
  id: ({ createdAt }) => createdAt,
  namespace: ({ namespace }) => namespace,
  display_name: ({ displayName }) => displayName,
  description: ({ description }) => description,
  visibility: ({ visibility }) => visibility,
  protected: (namespace) => Number(namespace.protected),
  owner: ({ owner }) => owner,
} satisfies Record<string, (namespace: Namespace) => string | number | null>
export type NamespaceSortKey = keyof typeof sortValues
export const namespaceSortKeys = Object.keys(sortValues) as readonly NamespaceSortKey[]

/** `GET namespaces`: those that the caller sees. Reads all of them: there are at most a thousand. @throws ServiceError `not-found` for the marker */
export async function listNamespaces(
  { catalog }: MetadefPorts,
  caller: Caller,
  query: NamespaceQuery,
): Promise<readonly Namespace[]> {
  const order = inOrder<Namespace>(
    [sortValues[query.sortKey], sortValues.created_at, ({ namespace }) => namespace],
    query.direction,
  )
  const marker = query.marker === undefined ? undefined : (await findNamespace(catalog, caller, query.marker)).body
  const all = await catalog.documents.list<Namespace>(NAMESPACE_KIND)
  return all
    .map(({ body }) => body)
    .filter(
      (namespace) =>
        isVisible(namespace, caller) &&
        (query.visibility === undefined || namespace.visibility === query.visibility) &&
        (query.resourceTypes?.some((wanted) => namespace.associations.some(({ name }) => sameName(name, wanted))) ?? true),
    )
    .sort(order)
    .filter((namespace) => !marker || order(namespace, marker) > 0)
    .slice(0, query.limit)
}

/** `GET namespaces/{namespace}`. @throws ServiceError `not-found` */
export async function showNamespace({ catalog }: MetadefPorts, caller: Caller, name: string): Promise<Namespace> {
  return (await findNamespace(catalog, caller, name)).body
}

/**
 * `POST namespaces`: with all that is given inside it, or not at all.
 * @param body checked here
 * @throws ServiceError `invalid-request`, `denied`, `conflict`, `too-large`
 */
export async function createNamespace(ports: MetadefPorts, caller: Caller, body: unknown): Promise<Namespace> {
  const at = (ports.now ?? Date.now)()
  const owner = caller.projectId ?? caller.userId
  const namespace = namespaceFrom(body, owner, at)
  assertMayWrite(caller, 'create a metadata namespace')
  assertWithinLimits(namespace)
  await ports.catalog.write(async (tx) => {
    await assertRoomForNamespace(tx)
    if (await tx.documents.get(NAMESPACE_KIND, keyOf(namespace.namespace))) throw alreadyThere(namespace.namespace)
    for (const { name } of namespace.associations) await rememberResourceType(tx, name, at)
    await tx.documents.put(NAMESPACE_KIND, keyOf(namespace.namespace), namespace, { expect: 0 })
  })
  return namespace
}

/** A namespace from the body of a request; also the form in which the standard set is written. @throws ServiceError `invalid-request` */
export function namespaceFrom(body: unknown, owner: string, at: number): Namespace {
  checkSchema(body, namespaceSchema)
  const given = body as Readonly<Record<string, unknown>>
  const associations = listIn(given.resource_type_associations).map((item) => associationFrom(item, at))
  const objects = listIn(given.objects).map((item) => objectFrom(item, at))
  assertDistinct('resource type', associations)
  assertDistinct('object', objects)
  const bare: Namespace = {
    ...attributesFrom(given, owner),
    createdAt: at,
    updatedAt: at,
    associations,
    properties: propertiesFrom(given.properties),
    objects,
    tags: [],
    nextOrdinal: 1,
    standardEdition: null,
  }
  return given.tags === undefined ? bare : withTags(bare, tagNamesFrom({ tags: given.tags }), at)
}

/**
 * `PUT namespaces/{namespace}`: replaces its attributes, its name among them, and leaves alone what is in it.
 * @throws ServiceError `invalid-request`, `not-found`, `denied`, `conflict`
 */
export async function updateNamespace(
  { catalog, now = Date.now }: MetadefPorts,
  caller: Caller,
  name: string,
  body: unknown,
): Promise<Namespace> {
  checkSchema(body, namespaceSchema)
  const attributes = attributesFrom(body as Readonly<Record<string, unknown>>, caller.projectId ?? caller.userId)
  return catalog.write(async (tx) => {
    const { body: old, key, version } = await findNamespace(tx, caller, name)
    assertMayWrite(caller, 'update a metadata namespace')
    const next: Namespace = { ...old, ...attributes, updatedAt: now(), standardEdition: null }
    const nextKey = keyOf(next.namespace)
    if (nextKey === key) {
      await tx.documents.put(NAMESPACE_KIND, key, next, { expect: version })
      return next
    }
    if (await tx.documents.get(NAMESPACE_KIND, nextKey)) throw alreadyThere(next.namespace)
    await tx.documents.delete(NAMESPACE_KIND, key, { expect: version })
    await tx.documents.put(NAMESPACE_KIND, nextKey, next, { expect: 0 })
    return next
  })
}

/** `DELETE namespaces/{namespace}`, with all that is in it. @throws ServiceError `not-found`, `denied` */
export async function deleteNamespace({ catalog }: MetadefPorts, caller: Caller, name: string): Promise<void> {
  await catalog.write(async (tx) => {
    const { body, key, version } = await findNamespace(tx, caller, name)
    assertMayWrite(caller, 'delete a metadata namespace')
    assertUnprotected(body, 'it')
    await tx.documents.delete(NAMESPACE_KIND, key, { expect: version })
  })
}

/**
 * The namespace as a kind of resource has it: each property under the prefix of the association.
 * A kind that is not associated changes nothing.
 */
export function asSeenBy(namespace: Namespace, resourceType: string): Namespace {
  const prefix = namespace.associations.find(({ name }) => name === resourceType)?.prefix
  if (!prefix) return namespace
  return {
    ...namespace,
    properties: namespace.properties.map(({ name, schema }) => ({ name: prefix + name, schema })),
    objects: namespace.objects.map((object) => ({
      ...object,
      properties: object.properties.map(({ key, schema }) => ({ key: prefix + key, schema })),
      required: object.required.map((key) => prefix + key),
    })),
  }
}

function attributesFrom(given: Readonly<Record<string, unknown>>, owner: string) {
  const text = (name: string) => (given[name] as string | undefined) ?? null
  const namespace = given.namespace as string
  assertName(namespace, 'a namespace')
  return {
    namespace,
    displayName: text('display_name'),
    description: text('description'),
    visibility: (given.visibility as Namespace['visibility'] | undefined) ?? 'private',
    protected: given.protected === true,
    owner: text('owner') || owner,
  } as const
}

const listIn = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

function assertDistinct(what: string, things: readonly { readonly name: string }[]): void {
  const seen = new Set<string>()
  for (const { name } of things) {
    if (seen.has(keyOf(name))) throw new ServiceError('conflict', `the ${what} ${quoted(name)} is given twice`)
    seen.add(keyOf(name))
  }
}

const alreadyThere = (name: string): ServiceError =>
  new ServiceError('conflict', `there is already a metadata namespace ${quoted(name)}; names are compared without regard to case`)
