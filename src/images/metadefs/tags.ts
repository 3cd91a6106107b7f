import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import {
  assertName,
  assertUnprotected,
  changeNamespace,
  findNamespace,
  keyOf,
  type MetadefPorts,
  type Namespace,
  notFound,
  quoted,
  sameName,
  type TagDefinition,
} from './metadef.ts'
import { inOrder, type Order } from './order.ts'
import { checkSchema } from './schema-check.ts'
import { tagListSchema, tagSchema } from './schemas.ts'

const sortValues = {
  created_at: ({ createdAt }) => createdAt,
  updated_at: ({ updatedAt }) => updatedAt,
  id: ({ ordinal }) => ordinal,
  name: ({ name }) => name,
} satisfies Record<string, (tag: TagDefinition) => string | number>
export type TagSortKey = keyof typeof sortValues
export const tagSortKeys = Object.keys(sortValues) as readonly TagSortKey[]

export interface TagQuery extends Order<TagSortKey> {
  readonly limit?: number
  readonly marker?: string
}

/** `GET namespaces/{namespace}/tags`. @throws ServiceError `not-found` for the namespace or the marker */
export async function listTags(
  { catalog }: MetadefPorts,
  caller: Caller,
  namespace: string,
  query: TagQuery,
): Promise<readonly TagDefinition[]> {
  const { body } = await findNamespace(catalog, caller, namespace)
  const order = inOrder<TagDefinition>([sortValues[query.sortKey], sortValues.created_at, sortValues.id], query.direction)
  const marker = query.marker === undefined ? undefined : tagIn(body, query.marker)
  const after = body.tags.toSorted(order).filter((tag) => !marker || order(tag, marker) > 0)
  return query.limit === undefined ? after : after.slice(0, query.limit)
}
/** As `showNamespace` shows them: the newest first. */
export const newestFirst = (tags: readonly TagDefinition[]): readonly TagDefinition[] =>
  tags.toSorted(inOrder<TagDefinition>([sortValues.created_at, sortValues.id], 'desc'))

/** `GET namespaces/{namespace}/tags/{name}`. @throws ServiceError `not-found` */
export async function showTag(
  { catalog }: MetadefPorts,
  caller: Caller,
  namespace: string,
  name: string,
): Promise<TagDefinition> {
  return tagIn((await findNamespace(catalog, caller, namespace)).body, name)
}

/** `POST namespaces/{namespace}/tags/{name}`. @throws ServiceError `invalid-request`, `not-found`, `denied`, `conflict` */
export async function createTag(ports: MetadefPorts, caller: Caller, namespace: string, name: string): Promise<TagDefinition> {
  await findNamespace(ports.catalog, caller, namespace) // before the name is looked at, as Glance does it
  checkSchema({ name }, tagSchema)
  return changeNamespace(ports, caller, namespace, 'define a tag', async (old, at) => {
    const next = withTags(old, [name], at)
    return { next, result: tagIn(next, name) }
  })
}

/**
 * `POST namespaces/{namespace}/tags`: replaces the tags by those given, or adds them. An empty list changes nothing.
 * @returns the names given. @throws ServiceError as `createTag`
 */
export async function createTags(
  ports: MetadefPorts,
  caller: Caller,
  namespace: string,
  body: unknown,
  append: boolean,
): Promise<readonly string[]> {
  const names = tagNamesFrom(body)
  return changeNamespace(ports, caller, namespace, 'define tags', async (old, at) => {
    const before = append || names.length === 0 ? old : { ...old, tags: [] }
    return { next: withTags(before, names, at), result: names }
  })
}

/** `PUT namespaces/{namespace}/tags/{name}`: gives it another name. @throws ServiceError as `createTag` */
export async function updateTag(
  ports: MetadefPorts,
  caller: Caller,
  namespace: string,
  name: string,
  body: unknown,
): Promise<TagDefinition> {
  checkSchema(body, tagSchema)
  const given = (body as { readonly name: string }).name
  assertName(given, 'a tag')
  return changeNamespace(ports, caller, namespace, 'update a tag', async (old, at) => {
    const before = tagIn(old, name)
    const others = old.tags.filter((tag) => tag !== before)
    if (others.some((tag) => sameName(tag.name, given))) throw alreadyThere(given, old.namespace)
    const result = { ...before, name: given, updatedAt: at }
    return { next: { ...old, tags: [...others, result] }, result }
  })
}

/** `DELETE namespaces/{namespace}/tags/{name}`. @throws ServiceError `not-found`, `denied` */
export async function deleteTag(ports: MetadefPorts, caller: Caller, namespace: string, name: string): Promise<void> {
  await changeNamespace(ports, caller, namespace, 'delete a tag', async (old) => {
    const gone = tagIn(old, name)
    assertUnprotected(old, `tag ${quoted(name)}`)
    return { next: { ...old, tags: old.tags.filter((tag) => tag !== gone) }, result: undefined }
  })
}

/** `DELETE namespaces/{namespace}/tags`: all of them. @throws ServiceError `not-found`, `denied` */
export async function deleteTags(ports: MetadefPorts, caller: Caller, namespace: string): Promise<void> {
  await changeNamespace(ports, caller, namespace, 'delete tags', async (old) => {
    assertUnprotected(old, 'its tags')
    return { next: { ...old, tags: [] }, result: undefined }
  })
}

/** @throws ServiceError `invalid-request` */
export function tagNamesFrom(body: unknown): readonly string[] {
  checkSchema(body, tagListSchema)
  return (body as { readonly tags: readonly { readonly name: string }[] }).tags.map(({ name }) => name)
}

/** The namespace with tags added. @throws ServiceError `conflict` for a name that is there or is given twice */
export function withTags(old: Namespace, names: readonly string[], at: number): Namespace {
  const taken = new Set(old.tags.map(({ name }) => keyOf(name)))
  const added = names.map((name, index): TagDefinition => {
    assertName(name, 'a tag')
    if (taken.has(keyOf(name))) throw alreadyThere(name, old.namespace)
    taken.add(keyOf(name))
    return { name, ordinal: old.nextOrdinal + index, createdAt: at, updatedAt: at }
  })
  return { ...old, tags: [...old.tags, ...added], nextOrdinal: old.nextOrdinal + names.length }
}

function tagIn(namespace: Namespace, name: string): TagDefinition {
  const found = namespace.tags.find((tag) => sameName(tag.name, name))
  if (!found) throw notFound('tag', name)
  return found
}

const alreadyThere = (name: string, namespace: string): ServiceError =>
  new ServiceError(
    'conflict',
    `there is already a tag ${quoted(name)} in namespace ${quoted(namespace)}; names are compared without regard to case`,
  )
