import type {
  Association,
  Namespace,
  ObjectDefinition,
  PropertyDefinition,
  ResourceType,
  TagDefinition,
} from '../../../images/metadefs/metadef.ts'
import { byName } from '../../../images/metadefs/objects.ts'
import { newestFirst } from '../../../images/metadefs/tags.ts'

/** How metadata definitions look in answers: member names, order and what is left out are those of Glance 25. */

/** `2026-11-21T09:00:00Z`: whole seconds, as Glance writes times. */
const secondsOf = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`
const times = ({ createdAt, updatedAt }: { readonly createdAt: number; readonly updatedAt: number }) => ({
  created_at: secondsOf(createdAt),
  updated_at: secondsOf(updatedAt),
})
const present = (members: Readonly<Record<string, string | null>>): Record<string, string> =>
  Object.fromEntries(Object.entries(members).filter((entry): entry is [string, string] => entry[1] !== null))

export const namespacePath = (name: string): string => `/v2/metadefs/namespaces/${name}`

/** The attributes alone: what an update answers with. */
export const renderAttributes = (namespace: Namespace) => ({
  namespace: namespace.namespace,
  ...present({ display_name: namespace.displayName, description: namespace.description }),
  visibility: namespace.visibility,
  protected: namespace.protected,
  owner: namespace.owner,
  ...times(namespace),
  self: namespacePath(namespace.namespace),
  schema: '/v2/schemas/metadefs/namespace',
})

/** As a member of a list: with its associations. */
export const renderListed = (namespace: Namespace) => ({
  ...renderAttributes(namespace),
  ...(namespace.associations.length > 0 ? { resource_type_associations: namespace.associations.map(renderAssociation) } : {}),
})

/** With all that is in it. */
export const renderNamespace = (namespace: Namespace) => ({
  ...renderListed(namespace),
  ...(namespace.objects.length > 0
    ? { objects: byName(namespace.objects).map((object) => renderObject(namespace.namespace, object)) }
    : {}),
  ...(namespace.properties.length > 0 ? { properties: renderProperties(namespace.properties) } : {}),
  ...(namespace.tags.length > 0 ? { tags: newestFirst(namespace.tags).map(({ name }) => ({ name })) } : {}),
})

/** What `POST namespaces` answers with: what was sent, without the links and times of the things inside. */
export const renderCreated = (namespace: Namespace, sent: Readonly<Record<string, unknown>>) => ({
  ...renderAttributes(namespace),
  ...(Array.isArray(sent.resource_type_associations)
    ? { resource_type_associations: namespace.associations.map(bareAssociation) }
    : {}),
  ...(sent.properties === undefined ? {} : { properties: renderProperties(namespace.properties) }),
  ...(Array.isArray(sent.objects)
    ? {
        objects: namespace.objects.map((object, index) => bareObject(object, sent.objects as readonly object[], index)),
      }
    : {}),
  ...(Array.isArray(sent.tags) ? { tags: namespace.tags.map(({ name }) => ({ name })) } : {}),
})

const bareAssociation = ({ name, prefix, propertiesTarget }: Association) => ({
  name,
  ...present({ prefix, properties_target: propertiesTarget }),
})
export const renderAssociation = (association: Association) => ({ ...bareAssociation(association), ...times(association) })
export const renderResourceType = (type: ResourceType) => ({ name: type.name, ...times(type) })

/** `fromEntries` defines the members: a property called `__proto__` is a member like any other. */
export const renderProperties = (properties: readonly PropertyDefinition[]) =>
  Object.fromEntries(properties.map(({ name, schema }) => [name, schema]))
export const renderProperty = ({ name, schema }: PropertyDefinition) => ({ name, ...schema })

const bareMembers = ({ name, description, required, properties }: ObjectDefinition, sent: object) => ({
  name,
  ...('required' in sent ? { required } : {}),
  ...present({ description }),
  ...('properties' in sent ? { properties: Object.fromEntries(properties.map(({ key, schema }) => [key, schema])) } : {}),
})
const bareObject = (object: ObjectDefinition, sent: readonly object[], index: number) => bareMembers(object, sent[index] ?? {})

const links = (namespace: string, name: string) => ({
  self: `${namespacePath(namespace)}/objects/${name}`,
  schema: '/v2/schemas/metadefs/object',
})
export const renderObject = (namespace: string, object: ObjectDefinition) => ({
  ...bareMembers(object, { required: true, properties: true }),
  ...times(object),
  ...links(namespace, object.name),
})
/** What creating or changing an object answers with: only the members that were sent. */
export const renderSentObject = (namespace: string, object: ObjectDefinition, sent: object) => ({
  ...bareMembers(object, sent),
  ...times(object),
  ...links(namespace, object.name),
})

export const renderTag = (tag: TagDefinition) => ({ name: tag.name, ...times(tag) })
