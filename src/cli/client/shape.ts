import { strange } from './http-client.ts'

/** Reads the fields of an answer: what the service (or what stands in its place) sends is parsed once, here at the edge. */
export class Shape {
  readonly #fields: Readonly<Record<string, unknown>>
  readonly #what: string

  /** @param what names the thing in the error: `image` */
  constructor(value: unknown, what: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw strange(`the answer holds no ${what}`)
    this.#fields = value as Record<string, unknown>
    this.#what = what
  }

  text(name: string): string {
    return this.#expect(name, this.textOrNull(name))
  }
  textOrNull(name: string): string | null {
    const value = this.#own(name)
    return value === undefined || value === null ? null : typeof value === 'string' ? value : this.#wrong(name)
  }
  number(name: string): number {
    return this.#expect(name, this.numberOrNull(name))
  }
  numberOrNull(name: string): number | null {
    const value = this.#own(name)
    return value === undefined || value === null ? null : Number.isFinite(value) ? (value as number) : this.#wrong(name)
  }
  flag(name: string): boolean {
    return this.#own(name) === true
  }
  texts(name: string): readonly string[] {
    const value = this.#own(name) ?? []
    return Array.isArray(value) && value.every((item) => typeof item === 'string') ? (value as string[]) : this.#wrong(name)
  }
  shape(name: string): Shape {
    return new Shape(this.#own(name), `${this.#what}.${name}`)
  }
  shapes(name: string): readonly Shape[] {
    const value = this.#own(name)
    return Array.isArray(value) ? value.map((item) => new Shape(item, `${this.#what}.${name}`)) : this.#wrong(name)
  }
  /** Fields not named, whose value is text. */
  otherTexts(known: ReadonlySet<string>): Readonly<Record<string, string>> {
    const others = Object.entries(this.#fields).filter(([name, value]) => !known.has(name) && typeof value === 'string')
    return Object.fromEntries(others) as Record<string, string>
  }
  isShape(name: string): boolean {
    const value = this.#own(name)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  }
  names(): readonly string[] {
    return Object.keys(this.#fields)
  }
  isNull(name: string): boolean {
    return this.#own(name) === null
  }
  has(name: string): boolean {
    return Object.hasOwn(this.#fields, name)
  }

  #own(name: string): unknown {
    return Object.hasOwn(this.#fields, name) ? this.#fields[name] : undefined
  }
  #expect<T>(name: string, value: T | null): T {
    return value === null ? this.#wrong(name) : value
  }
  #wrong(name: string): never {
    throw strange(`the ${this.#what} in the answer has no proper "${name}"`)
  }
}
