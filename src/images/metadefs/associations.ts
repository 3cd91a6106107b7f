import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { CatalogWriter } from '../../store/catalog/catalog.ts'
import {
  type Association,
  assertUnprotected,
  changeNamespace,
  findNamespace,
  keyOf,
  type MetadefPorts,
  quoted,
  RESOURCE_TYPE_KIND,
  type ResourceType,
  sameName,
} from './metadef.ts'
import { checkSchema } from './schema-check.ts'
import { resourceTypeSchema } from './schemas.ts'

/** `GET resource_types`: every kind of resource that a namespace was ever associated with. */
export async function listResourceTypes({ catalog }: MetadefPorts): Promise<readonly ResourceType[]> {
  return (await catalog.documents.list<ResourceType>(RESOURCE_TYPE_KIND)).map(({ body }) => body)
}

/** `GET namespaces/{namespace}/resource_types`. @throws ServiceError `not-found` */
export async function listAssociations(
  { catalog }: MetadefPorts,
  caller: Caller,
  namespace: string,
): Promise<readonly Association[]> {
  return (await findNamespace(catalog, caller, namespace)).body.associations
}

/** `POST namespaces/{namespace}/resource_types`. @throws ServiceError `invalid-request`, `not-found`, `denied`, `conflict` */
export async function createAssociation(
  ports: MetadefPorts,
  caller: Caller,
  namespace: string,
  body: unknown,
): Promise<Association> {
  checkSchema(body, resourceTypeSchema)
  return changeNamespace(ports, caller, namespace, 'associate a resource type', async (old, at, tx) => {
    const result = associationFrom(body, at)
    if (old.associations.some(({ name }) => sameName(name, result.name))) {
      throw new ServiceError('conflict', `namespace ${quoted(old.namespace)} is already associated with ${quoted(result.name)}`)
    }
    await rememberResourceType(tx, result.name, at)
    return { next: { ...old, associations: [...old.associations, result] }, result }
  })
}

/** `DELETE namespaces/{namespace}/resource_types/{name}`: the kind of resource stays known. @throws ServiceError `not-found`, `denied` */
export async function deleteAssociation(ports: MetadefPorts, caller: Caller, namespace: string, name: string): Promise<void> {
  await changeNamespace(ports, caller, namespace, 'end the association of a resource type', async (old) => {
    const associations = old.associations.filter((association) => association.name !== name)
    if (associations.length === old.associations.length) {
      throw new ServiceError('not-found', `namespace ${quoted(old.namespace)} has no association with ${quoted(name)}`)
    }
    assertUnprotected(old, `the association with ${quoted(name)}`)
    return { next: { ...old, associations }, result: undefined }
  })
}

/** @throws ServiceError `invalid-request` */
export function associationFrom(body: unknown, at: number): Association {
  checkSchema(body, resourceTypeSchema)
  const { name, prefix, properties_target } = body as { name: string; prefix?: string; properties_target?: string }
  if (name === '') throw new ServiceError('invalid-request', 'a resource type must have a name')
  return { name, prefix: prefix ?? null, propertiesTarget: properties_target ?? null, createdAt: at, updatedAt: at }
}

const MAX_RESOURCE_TYPES = 1000 // they are listed whole

export async function rememberResourceType(tx: CatalogWriter, name: string, at: number): Promise<void> {
  if (await tx.documents.get(RESOURCE_TYPE_KIND, keyOf(name))) return
  if ((await tx.documents.list(RESOURCE_TYPE_KIND, { limit: MAX_RESOURCE_TYPES })).length >= MAX_RESOURCE_TYPES) {
    throw new ServiceError('too-large', `${MAX_RESOURCE_TYPES} resource types are known, and no more are taken`)
  }
  await tx.documents.put<ResourceType>(RESOURCE_TYPE_KIND, keyOf(name), { name, createdAt: at, updatedAt: at })
}
