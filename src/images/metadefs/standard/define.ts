import type { PropertySchema } from '../metadef.ts'

/** The words in which the standard set is written: a namespace as the body of `POST namespaces` has it. */
export interface StandardNamespace {
  readonly namespace: string
  readonly display_name: string
  readonly description: string
  readonly resource_type_associations: readonly StandardAssociation[]
  readonly properties?: Readonly<Record<string, PropertySchema>>
  readonly objects?: readonly StandardObject[]
  readonly tags?: readonly { readonly name: string }[]
}
export interface StandardAssociation {
  readonly name: string
  readonly prefix?: string
  readonly properties_target?: string
}
export interface StandardObject {
  readonly name: string
  readonly description: string
  readonly properties: Readonly<Record<string, PropertySchema>>
}

export const text = (title: string, description: string, more: PropertySchema = {}): PropertySchema => ({
  title,
  description,
  type: 'string',
  ...more,
})
export const choice = (
  title: string,
  description: string,
  values: readonly string[],
  more: PropertySchema = {},
): PropertySchema => text(title, description, { enum: values, ...more })
export const flag = (title: string, description: string, more: PropertySchema = {}): PropertySchema => ({
  title,
  description,
  type: 'boolean',
  ...more,
})
export const whole = (title: string, description: string, minimum: number, maximum?: number): PropertySchema => ({
  title,
  description,
  type: 'integer',
  minimum,
  ...(maximum === undefined ? {} : { maximum }),
})

/** Properties that stand under one name on an image and on the image data of a volume. */
export const onImages: readonly StandardAssociation[] = [
  { name: 'OS::Glance::Image' },
  { name: 'OS::Cinder::Volume', properties_target: 'image' },
]
/** Properties that an image has with `hw_` before them and a flavor with `hw:`. */
export const onImagesAndFlavors: readonly StandardAssociation[] = [
  { name: 'OS::Glance::Image', prefix: 'hw_' },
  { name: 'OS::Cinder::Volume', prefix: 'hw_', properties_target: 'image' },
  { name: 'OS::Nova::Flavor', prefix: 'hw:' },
]
