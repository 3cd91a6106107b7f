import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import {
  assertName,
  assertUnprotected,
  changeNamespace,
  findNamespace,
  keyOf,
  type MetadefPorts,
  notFound,
  type ObjectDefinition,
  quoted,
  sameName,
} from './metadef.ts'
import { keyedPropertiesFrom } from './property-schema.ts'
import { checkSchema } from './schema-check.ts'
import { objectSchema } from './schemas.ts'

/** `GET namespaces/{namespace}/objects`: all of them, by name; Glance pages no objects. @throws ServiceError `not-found` */
export async function listObjects(
  { catalog }: MetadefPorts,
  caller: Caller,
  namespace: string,
): Promise<readonly ObjectDefinition[]> {
  return byName((await findNamespace(catalog, caller, namespace)).body.objects)
}
export const byName = <T extends { readonly name: string }>(things: readonly T[]): readonly T[] =>
  things.toSorted((a, b) => (keyOf(a.name) < keyOf(b.name) ? -1 : 1))

/** `GET namespaces/{namespace}/objects/{name}`. @throws ServiceError `not-found` */
export async function showObject(
  { catalog }: MetadefPorts,
  caller: Caller,
  namespace: string,
  name: string,
): Promise<ObjectDefinition> {
  const { body } = await findNamespace(catalog, caller, namespace)
  const found = body.objects.find((object) => sameName(object.name, name))
  if (!found) throw notFound('object', name)
  return found
}

/** `POST namespaces/{namespace}/objects`. @throws ServiceError `invalid-request`, `not-found`, `denied`, `conflict` */
export async function createObject(
  ports: MetadefPorts,
  caller: Caller,
  namespace: string,
  body: unknown,
): Promise<ObjectDefinition> {
  const given = objectFrom(body, 0)
  return changeNamespace(ports, caller, namespace, 'define an object', async (old, at) => {
    if (old.objects.some(({ name }) => sameName(name, given.name))) throw alreadyThere(given.name, old.namespace)
    const result = { ...given, createdAt: at, updatedAt: at }
    return { next: { ...old, objects: [...old.objects, result] }, result }
  })
}

/** `PUT namespaces/{namespace}/objects/{name}`: replaces it, its name among all. @throws ServiceError as `createObject` */
export async function updateObject(
  ports: MetadefPorts,
  caller: Caller,
  namespace: string,
  name: string,
  body: unknown,
): Promise<ObjectDefinition> {
  const given = objectFrom(body, 0)
  return changeNamespace(ports, caller, namespace, 'update an object', async (old, now) => {
    const at = old.objects.findIndex((object) => sameName(object.name, name))
    const before = old.objects[at]
    if (!before) throw notFound('object', name)
    const clash = old.objects.findIndex((object) => sameName(object.name, given.name))
    if (clash >= 0 && clash !== at) throw alreadyThere(given.name, old.namespace)
    const result = { ...given, createdAt: before.createdAt, updatedAt: now }
    return { next: { ...old, objects: old.objects.with(at, result) }, result }
  })
}

/** `DELETE namespaces/{namespace}/objects/{name}`. @throws ServiceError `not-found`, `denied` */
export async function deleteObject(ports: MetadefPorts, caller: Caller, namespace: string, name: string): Promise<void> {
  await changeNamespace(ports, caller, namespace, 'delete an object', async (old) => {
    const objects = old.objects.filter((object) => !sameName(object.name, name))
    if (objects.length === old.objects.length) throw notFound('object', name)
    assertUnprotected(old, `object ${quoted(name)}`)
    return { next: { ...old, objects }, result: undefined }
  })
}

/** `DELETE namespaces/{namespace}/objects`: all of them. @throws ServiceError `not-found`, `denied` */
export async function deleteObjects(ports: MetadefPorts, caller: Caller, namespace: string): Promise<void> {
  await changeNamespace(ports, caller, namespace, 'delete objects', async (old) => {
    assertUnprotected(old, 'its objects')
    return { next: { ...old, objects: [] }, result: undefined }
  })
}

/** @throws ServiceError `invalid-request` */
export function objectFrom(body: unknown, at: number): ObjectDefinition {
  checkSchema(body, objectSchema)
  const { name, description, required, properties } = body as Readonly<Record<string, unknown>>
  assertName(name as string, 'an object')
  return {
    name: name as string,
    description: (description as string | undefined) ?? null,
    // Glance keeps them as one text with commas between: a name with a comma comes back as two.
    required: ((required as readonly string[] | undefined) ?? []).flatMap((each) => each.split(',')),
    properties: keyedPropertiesFrom(properties, 'body.properties'),
    createdAt: at,
    updatedAt: at,
  }
}

const alreadyThere = (name: string, namespace: string): ServiceError =>
  new ServiceError('conflict', `there is already an object ${quoted(name)} in namespace ${quoted(namespace)}`)
