import { ServiceError } from '../../../base/errors.ts'

/** Deeper than any request of this API, and far from where writing JSON again would overflow the stack. */
const MAX_DEPTH = 16
/** Ten fit on a line of a log; the ids and names that count are far shorter. */
const MAX_TEXT_CHARACTERS = 4096

/**
 * One object of a request body, read field by field: what is not of the wanted type is refused with the path to it.
 * Own properties only, so that nothing which JavaScript gives every object can pass for input.
 */
export class Fields {
  readonly #object: Readonly<Record<string, unknown>>
  readonly #path: string

  constructor(object: Readonly<Record<string, unknown>>, path: string) {
    this.#object = object
    this.#path = path
  }

  get isEmpty(): boolean {
    return Object.keys(this.#object).length === 0
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#object, name)
  }

  isText(name: string): boolean {
    return typeof this.#value(name) === 'string'
  }

  object(name: string): Fields {
    return this.optionalObject(name) ?? this.#refuse(name, 'is missing: it must be an object')
  }

  optionalObject(name: string): Fields | undefined {
    const value = this.#value(name)
    if (value === undefined) return undefined
    if (!isObject(value)) this.#refuse(name, 'must be an object')
    return new Fields(value, this.#at(name))
  }

  list(name: string, most: number): readonly Fields[] {
    return this.optionalList(name, most) ?? this.#refuse(name, 'is missing: it must be a list of objects')
  }

  optionalList(name: string, most: number): readonly Fields[] | undefined {
    const items = this.#items(name, most)
    return items?.map((item, n) => {
      if (!isObject(item)) this.#refuse(`${name}[${n}]`, 'must be an object')
      return new Fields(item, this.#at(`${name}[${n}]`))
    })
  }

  texts(name: string, most: number, rule: TextRule = {}): readonly string[] | undefined {
    return this.#items(name, most)?.map((item, n) => this.#checked(`${name}[${n}]`, item, rule))
  }

  text(name: string, rule: TextRule = {}): string {
    return this.optionalText(name, rule) ?? this.#refuse(name, 'is missing: it must be a string')
  }

  optionalText(name: string, rule: TextRule = {}): string | undefined {
    const value = this.#value(name)
    return value === undefined ? undefined : this.#checked(name, value, rule)
  }

  nullableText(name: string, rule: TextRule = {}): string | null | undefined {
    return this.#value(name) === null ? null : this.optionalText(name, rule)
  }

  flag(name: string): boolean | undefined {
    const value = this.#value(name)
    if (value !== undefined && typeof value !== 'boolean') this.#refuse(name, 'must be true or false')
    return value
  }

  integer(name: string, least: number, most: number): number {
    return this.optionalInteger(name, least, most) ?? this.#refuse(name, 'is missing: it must be an integer')
  }

  optionalInteger(name: string, least: number, most: number): number | undefined {
    const value = this.#value(name)
    if (value === undefined) return undefined
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
      this.#refuse(name, `must be an integer from ${least} to ${most}`)
    }
    return value
  }

  /** What the request brings besides `known`. */
  rest(known: ReadonlySet<string>): Readonly<Record<string, unknown>> {
    return Object.fromEntries(Object.entries(this.#object).filter(([name]) => !known.has(name)))
  }

  /** @throws ServiceError `invalid-request` where there is a field besides `known` */
  only(known: ReadonlySet<string>): void {
    for (const name of Object.keys(this.#object))
      if (!known.has(name)) this.#refuse(name.slice(0, 64), 'is not a field of this request')
  }

  #value(name: string): unknown {
    return Object.hasOwn(this.#object, name) ? this.#object[name] : undefined
  }

  #items(name: string, most: number): readonly unknown[] | undefined {
    const value = this.#value(name)
    if (value === undefined) return undefined
    if (!Array.isArray(value)) this.#refuse(name, 'must be a list')
    if (value.length > most) this.#refuse(name, `may have at most ${most} items`)
    return value
  }

  #checked(name: string, value: unknown, { least = 0, most = MAX_TEXT_CHARACTERS, form, free = false }: TextRule): string {
    if (typeof value !== 'string') this.#refuse(name, 'must be a string')
    if (value.length < least) this.#refuse(name, least === 1 ? 'cannot be empty' : `must have at least ${least} characters`)
    if (value.length > most) this.#refuse(name, `may have at most ${most} characters`)
    if (!value.isWellFormed()) this.#refuse(name, 'is not well-formed Unicode: it has half of a surrogate pair')
    if (!free && hasControl(value)) this.#refuse(name, 'has a control character, such as a line break')
    if (form && !form.pattern.test(value)) this.#refuse(name, form.says)
    return value
  }

  #at = (name: string): string => (this.#path ? `${this.#path}.${name}` : name)

  #refuse(name: string, problem: string): never {
    throw new ServiceError('invalid-request', `${this.#at(name)} ${problem}`)
  }
}

export interface TextRule {
  readonly least?: number
  readonly most?: number
  readonly form?: { readonly pattern: RegExp; readonly says: string }
  /** Any character at all: passwords, secrets, descriptions. */
  readonly free?: boolean
}
export const rules = {
  name: { least: 1, most: 255, form: { pattern: /\S/, says: 'must have more than spaces' } },
  projectName: { least: 1, most: 64, form: { pattern: /\S/, says: 'must have more than spaces' } },
  id: { least: 1, most: 64, form: { pattern: /^[a-zA-Z0-9-]+$/, says: 'must be an id: letters, digits and hyphens' } },
  tag: { least: 1, most: 255, form: { pattern: /^[^,/]*$/, says: 'cannot have commas or slashes' } },
  resource: { least: 1, most: 255 },
  free: { most: MAX_TEXT_CHARACTERS, free: true },
  /** A reference that need not be one of ours. */
  reference: { most: 255, free: true },
} as const satisfies Record<string, TextRule>

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const hasControl = (text: string): boolean => /[\u0000-\u001f\u007f]/.test(text)

/**
 * The body of a request as an object; an empty one counts as `{}`.
 * @throws ServiceError `invalid-request` for what is not a JSON object, is nested too deep or names `__proto__`
 */
export function parseBody(text: string): Readonly<Record<string, unknown>> {
  if (text.trim() === '') return {}
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new ServiceError('invalid-request', 'the body is not valid JSON')
  }
  if (!isObject(value)) throw new ServiceError('invalid-request', 'the body must be a JSON object')
  checkShape(value, 0)
  return value
}

function checkShape(value: unknown, depth: number): void {
  if (typeof value !== 'object' || value === null) return
  if (depth >= MAX_DEPTH) throw new ServiceError('invalid-request', `the body is nested deeper than ${MAX_DEPTH} levels`)
  for (const [name, inner] of Object.entries(value)) {
    if (name === '__proto__') throw new ServiceError('invalid-request', 'a field cannot be named __proto__')
    checkShape(inner, depth + 1)
  }
}
