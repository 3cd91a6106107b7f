import { Type } from '@sinclair/typebox'

/** The parts of request bodies that several requests share. Limits are those of Cinder's `parameter_types`. */

export const strict = { additionalProperties: false } as const

/** Blanks at its ends are cut off. */
export const name = Type.Union([Type.String({ maxLength: 255 }), Type.Null()], { description: 'at most 255 characters, or null' })
export const description = name

export const metadata = Type.Record(
  Type.String({ pattern: '^[^\\u0000-\\u001f\\u007f]{1,255}$' }),
  Type.String({ maxLength: 255, description: 'a text of at most 255 characters' }),
  { additionalProperties: false, description: 'names of 1 to 255 characters, with texts of at most 255' },
)
/** Cinder takes null for none. */
export const optionalMetadata = Type.Optional(
  Type.Union([metadata, Type.Null()], { description: 'names of 1 to 255 characters, with texts of at most 255; or null' }),
)

/** Cinder takes numbers in quotes as well. */
export const gigabytes = Type.Union(
  [Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 }), Type.String({ pattern: '^[1-9][0-9]{0,9}$' })],
  {
    description: 'a whole number of gigabytes, 1 at least',
  },
)

/** oslo's words for a yes or a no, which Cinder takes wherever it takes either. */
export const yesOrNo = Type.Union(
  [
    Type.Boolean(),
    Type.String({ pattern: '^(1|[Tt]|[Tt]rue|TRUE|[Oo]n|ON|[Yy]|[Yy]es|YES|0|[Ff]|[Ff]alse|FALSE|[Oo]ff|OFF|[Nn]|[Nn]o|NO)$' }),
  ],
  { description: 'true or false' },
)

export const reference = Type.Union([Type.String({ maxLength: 255 }), Type.Null()])
export const nothing = Type.Union([Type.Null(), Type.Object({}), Type.String({ maxLength: 255 })])
