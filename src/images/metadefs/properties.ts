import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import {
  assertName,
  assertUnprotected,
  changeNamespace,
  findNamespace,
  type MetadefPorts,
  notFound,
  type PropertyDefinition,
  quoted,
  sameName,
} from './metadef.ts'
import { keyedPropertiesFrom, propertySchemaFrom } from './property-schema.ts'
import { checkSchema } from './schema-check.ts'
import { propertySchema } from './schemas.ts'

/** `GET namespaces/{namespace}/properties`. @throws ServiceError `not-found` */
export async function listProperties(
  { catalog }: MetadefPorts,
  caller: Caller,
  namespace: string,
): Promise<readonly PropertyDefinition[]> {
  return (await findNamespace(catalog, caller, namespace)).body.properties
}

/**
 * `GET namespaces/{namespace}/properties/{name}`.
 * @param resourceType `name` is then as this kind of resource has it, prefix and all
 * @throws ServiceError `not-found`
 */
export async function showProperty(
  { catalog }: MetadefPorts,
  caller: Caller,
  namespace: string,
  name: string,
  resourceType?: string,
): Promise<PropertyDefinition> {
  const { body } = await findNamespace(catalog, caller, namespace)
  const plain = resourceType === undefined ? name : withoutPrefix(body.associations, resourceType, name)
  const found = body.properties.find((property) => sameName(property.name, plain))
  if (!found) throw notFound('property', plain)
  return found
}

function withoutPrefix(
  associations: readonly { readonly name: string; readonly prefix: string | null }[],
  resourceType: string,
  name: string,
): string {
  const association = associations.find((candidate) => sameName(candidate.name, resourceType))
  if (!association) throw notFound('association with resource type', resourceType)
  const { prefix } = association
  if (!prefix || !name.startsWith(prefix)) {
    const begins = prefix ? `begin with ${quoted(prefix)}` : 'have a prefix'
    throw new ServiceError('not-found', `properties do not ${begins} on ${quoted(resourceType)}, unlike ${quoted(name)}`)
  }
  return name.slice(prefix.length)
}

/** `POST namespaces/{namespace}/properties`. @throws ServiceError `invalid-request`, `not-found`, `denied`, `conflict` */
export async function createProperty(
  ports: MetadefPorts,
  caller: Caller,
  namespace: string,
  body: unknown,
): Promise<PropertyDefinition> {
  const result = propertyFrom(body)
  return changeNamespace(ports, caller, namespace, 'define a property', async (old) => {
    if (old.properties.some(({ name }) => sameName(name, result.name))) throw alreadyThere(result.name, old.namespace)
    return { next: { ...old, properties: [...old.properties, result] }, result }
  })
}

/** `PUT namespaces/{namespace}/properties/{name}`: replaces it, its name among all. @throws ServiceError as `createProperty` */
export async function updateProperty(
  ports: MetadefPorts,
  caller: Caller,
  namespace: string,
  name: string,
  body: unknown,
): Promise<PropertyDefinition> {
  const result = propertyFrom(body)
  return changeNamespace(ports, caller, namespace, 'update a property', async (old) => {
    const at = old.properties.findIndex((property) => sameName(property.name, name))
    if (at < 0) throw notFound('property', name)
    const clash = old.properties.findIndex((property) => sameName(property.name, result.name))
    if (clash >= 0 && clash !== at) throw alreadyThere(result.name, old.namespace)
    return { next: { ...old, properties: old.properties.with(at, result) }, result }
  })
}

/** `DELETE namespaces/{namespace}/properties/{name}`. @throws ServiceError `not-found`, `denied` */
export async function deleteProperty(ports: MetadefPorts, caller: Caller, namespace: string, name: string): Promise<void> {
  await changeNamespace(ports, caller, namespace, 'delete a property', async (old) => {
    const properties = old.properties.filter((property) => !sameName(property.name, name))
    if (properties.length === old.properties.length) throw notFound('property', name)
    assertUnprotected(old, `property ${quoted(name)}`)
    return { next: { ...old, properties }, result: undefined }
  })
}

/** `DELETE namespaces/{namespace}/properties`: all of them. @throws ServiceError `not-found`, `denied` */
export async function deleteProperties(ports: MetadefPorts, caller: Caller, namespace: string): Promise<void> {
  await changeNamespace(ports, caller, namespace, 'delete properties', async (old) => {
    assertUnprotected(old, 'its properties')
    return { next: { ...old, properties: [] }, result: undefined }
  })
}

/** The properties inside the body of a namespace. @throws ServiceError `invalid-request`, `conflict` */
export function propertiesFrom(value: unknown): readonly PropertyDefinition[] {
  const kept = new Map<string, PropertyDefinition>()
  for (const { key, schema } of keyedPropertiesFrom(value, 'body.properties')) {
    assertName(key, 'a property')
    if (kept.has(key.toLowerCase())) throw new ServiceError('conflict', `the property ${quoted(key)} is given twice`)
    kept.set(key.toLowerCase(), { name: key, schema })
  }
  return [...kept.values()]
}

function propertyFrom(body: unknown): PropertyDefinition {
  checkSchema(body, propertySchema)
  const schema = propertySchemaFrom(body, 'body')
  const name = schema.name as string
  assertName(name, 'a property')
  return { name, schema }
}

const alreadyThere = (name: string, namespace: string): ServiceError =>
  new ServiceError('conflict', `there is already a property ${quoted(name)} in namespace ${quoted(namespace)}`)
