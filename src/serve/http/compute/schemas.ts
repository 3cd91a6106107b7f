import { Type } from '@sinclair/typebox'

/** The parts of request bodies that several requests share. Limits are those of Nova's `parameter_types`. */

// no control characters, no blanks at either end
const NAME = '^[^\\s\\u0000-\\u001f\\u007f]([^\\u0000-\\u001f\\u007f]*[^\\s\\u0000-\\u001f\\u007f])?$'

export const strict = { additionalProperties: false } as const

export const name = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: NAME,
  description: 'a name of 1 to 255 characters, without control characters, and without blanks at its ends',
})
export const description = Type.Union(
  [Type.String({ maxLength: 255, pattern: '^[^\\u0000-\\u0008\\u000b-\\u001f\\u007f]*$' }), Type.Null()],
  { description: 'null, or at most 255 characters without control characters' },
)
export const uuid = Type.String({
  pattern: '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$',
  description: 'a UUID',
})

/** Nova takes numbers in quotes as well. */
export const count = (least: number, most: number) =>
  Type.Union([Type.Integer({ minimum: least, maximum: most }), Type.String({ pattern: '^[0-9]{1,10}$' })], {
    description: `a whole number from ${least} to ${most}`,
  })

/** oslo's words for a yes or a no, which Nova takes wherever it takes either. */
export const yesOrNo = Type.Union(
  [
    Type.Boolean(),
    Type.String({ pattern: '^(1|[Tt]|[Tt]rue|TRUE|[Oo]n|ON|[Yy]|[Yy]es|YES|0|[Ff]|[Ff]alse|FALSE|[Oo]ff|OFF|[Nn]|[Nn]o|NO)$' }),
  ],
  { description: 'true or false' },
)

export const metadata = Type.Record(
  Type.String({ pattern: '^[a-zA-Z0-9\\-_:. ]{1,255}$' }),
  Type.String({ maxLength: 255, description: 'a text of at most 255 characters' }),
  {
    additionalProperties: false,
    description: 'names of letters, digits, "-", "_", ":", "." and blanks, with texts of at most 255 characters',
  },
)
export const extraSpecs = Type.Record(
  Type.String({ pattern: '^[a-zA-Z0-9\\-_:. ]{1,255}$' }),
  Type.Union([Type.String({ maxLength: 255 }), Type.Number()], { description: 'a text of at most 255 characters' }),
  { additionalProperties: false, minProperties: 1 },
)
