import { ServiceError } from '../../base/errors.ts'

/**
 * Filters by name are regular expressions of users. JavaScript's own would let one of them hold up the service for ever, so this
 * matches by states, in time that grows with pattern × text: Thompson, "Regular expression search algorithm", CACM 1968.
 *
 * It knows what the expressions of databases have in common: characters, `.`, `[…]`, `\d \w \s`, groups, `|`, `* + ? {m,n}`, `^`, `$`.
 */
export type NamePattern = (text: string) => boolean

type Fits = (character: string) => boolean
type Part =
  | { readonly is: 'character'; readonly fits: Fits }
  | { readonly is: 'start' | 'end' }
  | { readonly is: 'sequence'; readonly parts: readonly Part[] }
  | { readonly is: 'choice'; readonly parts: readonly Part[] }
  | { readonly is: 'repeat'; readonly part: Part; readonly least: number; readonly most: number }

type Step =
  | { readonly is: 'character'; readonly fits: Fits }
  | { readonly is: 'start' | 'end' | 'found' }
  | { readonly is: 'fork'; readonly to: number[] }

const MAX_PATTERN = 255
const MAX_STEPS = 500 // with a name's 255 characters, some 130,000 looks for each name

/** @throws ServiceError `invalid-request` */
export function namePattern(pattern: string): NamePattern {
  if (pattern.length > MAX_PATTERN) refuse(pattern, `it is longer than ${MAX_PATTERN} characters`)
  const steps: Step[] = []
  emit(new Parser(pattern).parse(), steps, pattern)
  steps.push({ is: 'found' })
  return (text) => matches(steps, [...text])
}

// ---------------------------------------------------------------- matching

function matches(steps: readonly Step[], text: readonly string[]): boolean {
  let current = new Set<number>()
  for (let at = 0; ; at += 1) {
    if (enter(steps, 0, at, text.length, current)) return true // a match may begin at each character
    const character = text[at]
    if (character === undefined) return false
    const next = new Set<number>()
    for (const state of current) {
      const step = steps[state]
      if (step?.is !== 'character' || !step.fits(character)) continue
      if (enter(steps, state + 1, at + 1, text.length, next)) return true
    }
    current = next
  }
}

/** Adds to `reached` all that is reached without a character. @returns whether the end of the pattern is */
function enter(steps: readonly Step[], from: number, at: number, length: number, reached: Set<number>): boolean {
  const open = [from]
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    if (reached.has(state)) continue
    reached.add(state)
    const step = steps[state]
    if (step?.is === 'found') return true
    if (step?.is === 'fork') open.push(...step.to)
    else if (step?.is === 'start' && at === 0) open.push(state + 1)
    else if (step?.is === 'end' && at === length) open.push(state + 1)
  }
  return false
}

// ---------------------------------------------------------------- parts → steps

/** Appends the steps of `part`; whoever comes out of them goes on at the step behind the last. */
function emit(part: Part, steps: Step[], pattern: string): void {
  if (steps.length > MAX_STEPS) refuse(pattern, 'its repetitions make it too large')
  if (part.is === 'repeat') emitRepeat(part, steps, pattern)
  else if (part.is === 'choice') emitChoice(part.parts, steps, pattern)
  else if (part.is === 'sequence') for (const each of part.parts) emit(each, steps, pattern)
  else steps.push(part)
}

function emitChoice(parts: readonly Part[], steps: Step[], pattern: string): void {
  const entry: number[] = []
  const exits: number[][] = []
  steps.push({ is: 'fork', to: entry })
  for (const part of parts) {
    entry.push(steps.length)
    emit(part, steps, pattern)
    const exit: number[] = []
    exits.push(exit)
    steps.push({ is: 'fork', to: exit })
  }
  for (const exit of exits) exit.push(steps.length)
}

function emitRepeat({ part, least, most }: Extract<Part, { is: 'repeat' }>, steps: Step[], pattern: string): void {
  for (let n = 0; n < least; n += 1) {
    const before = steps.length
    emit(part, steps, pattern)
    if (steps.length === before) break // nothing, however often; the limit of steps would never end `(){999}{999}{999}`
  }
  const skips: number[][] = []
  for (let n = least; n < (most === Number.POSITIVE_INFINITY ? least + 1 : most); n += 1) {
    const head = steps.length
    const to = [head + 1]
    skips.push(to)
    steps.push({ is: 'fork', to })
    emit(part, steps, pattern)
    if (most === Number.POSITIVE_INFINITY) steps.push({ is: 'fork', to: [head] })
  }
  for (const to of skips) to.push(steps.length)
}

// ---------------------------------------------------------------- text → parts

const classes: Readonly<Record<string, RegExp>> = { d: /\d/, D: /\D/, w: /\w/, W: /\W/, s: /\s/, S: /\S/ }

/** By descent; it goes no deeper than the pattern is long. */
class Parser {
  readonly #pattern: string
  readonly #text: readonly string[]
  #at = 0

  constructor(pattern: string) {
    this.#pattern = pattern
    this.#text = [...pattern]
  }

  parse(): Part {
    const part = this.#choice()
    if (this.#at < this.#text.length) this.#refuse('a ")" closes nothing')
    return part
  }

  #choice(): Part {
    const parts = [this.#sequence()]
    while (this.#take('|')) parts.push(this.#sequence())
    return parts.length === 1 && parts[0] ? parts[0] : { is: 'choice', parts }
  }

  #sequence(): Part {
    const parts: Part[] = []
    while (this.#at < this.#text.length && this.#peek() !== '|' && this.#peek() !== ')') parts.push(this.#repeated(this.#atom()))
    return { is: 'sequence', parts }
  }

  #atom(): Part {
    const character = this.#next()
    if (character === '(') {
      if (this.#take('?') && !this.#take(':')) this.#refuse('of "(?" it knows "(?:" only')
      const part = this.#choice()
      if (!this.#take(')')) this.#refuse('a ")" is missing')
      return part
    }
    if (character === '^') return { is: 'start' }
    if (character === '$') return { is: 'end' }
    if (character === '.') return { is: 'character', fits: () => true }
    if (character === '[') return { is: 'character', fits: this.#set() }
    if (character === '\\') return { is: 'character', fits: this.#escaped() }
    if ('*+?'.includes(character)) this.#refuse(`"${character}" repeats nothing`)
    return { is: 'character', fits: (other) => other === character }
  }

  #repeated(part: Part): Part {
    const counts = this.#counts()
    if (!counts) return part
    this.#take('?') // as few as possible: whether it matches is the same
    return this.#repeated({ is: 'repeat', part, ...counts })
  }

  #counts(): { readonly least: number; readonly most: number } | null {
    if (this.#take('*')) return { least: 0, most: Number.POSITIVE_INFINITY }
    if (this.#take('+')) return { least: 1, most: Number.POSITIVE_INFINITY }
    if (this.#take('?')) return { least: 0, most: 1 }
    const found = /^\{(\d{1,3})(,(\d{0,3}))?\}/.exec(this.#text.slice(this.#at, this.#at + 9).join(''))
    if (!found) return null
    this.#at += found[0].length
    const least = Number(found[1])
    const most = found[2] === undefined ? least : found[3] === '' ? Number.POSITIVE_INFINITY : Number(found[3])
    if (most < least) this.#refuse('a repetition ends before it begins')
    return { least, most }
  }

  #set(): Fits {
    const isNot = this.#take('^')
    const fits: Fits[] = []
    for (let first = true; first || this.#peek() !== ']'; first = false) {
      if (this.#at >= this.#text.length) this.#refuse('a "]" is missing')
      const from = this.#next()
      if (from === '\\') fits.push(this.#escaped())
      else if (this.#peek() === '-' && this.#text[this.#at + 1] !== ']') fits.push(this.#range(from))
      else fits.push((character) => character === from)
    }
    this.#at += 1
    return (character) => fits.some((fit) => fit(character)) !== isNot
  }

  #range(from: string): Fits {
    this.#at += 1
    const to = this.#next()
    if (to < from) this.#refuse('a range ends before it begins')
    return (character) => character >= from && character <= to
  }

  #escaped(): Fits {
    const character = this.#next()
    const known = classes[character]
    return known ? (other) => known.test(other) : (other) => other === character
  }

  #peek(): string | undefined {
    return this.#text[this.#at]
  }
  #next(): string {
    const character = this.#text[this.#at] ?? this.#refuse('it ends too early')
    this.#at += 1
    return character
  }
  #take(character: string): boolean {
    if (this.#peek() !== character) return false
    this.#at += 1
    return true
  }
  #refuse(problem: string): never {
    return refuse(this.#pattern, problem)
  }
}

function refuse(pattern: string, problem: string): never {
  throw new ServiceError(
    'invalid-request',
    `${JSON.stringify(pattern.slice(0, 80))} is not a regular expression that is taken here: ${problem}`,
  )
}
