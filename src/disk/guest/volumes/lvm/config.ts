import { refuse } from './refuse.ts'

/** A section of a volume group's description: what it names, in order. */
export type Section = ReadonlyMap<string, Value>
export type Value = string | number | readonly (string | number)[] | Section

const MAX_DEPTH = 8 // the format's own is 4
/** Names and values of all sections: a thousand logical volumes have 20,000. Bounds the memory that a text of few bytes each may ask for. */
const MAX_VALUES = 50_000

/**
 * Reads LVM's text: `name = value`, `name { … }`, `# …`; values are numbers, "strings" and [arrays] of them. Source: lvm.conf(5),
 * "LVM configuration syntax", which is that of the metadata as well.
 * @throws ServiceError `invalid-image` with the byte at which it breaks the grammar
 */
export function parseConfig(text: string): Section {
  const root = new Map<string, Value>()
  const open: Map<string, Value>[] = [root]
  let [at, values] = [0, 0]
  const bad = (problem: string) => refuse('malformed', `its description, byte ${at}: ${problem}`, { offset: at })
  /** One word: a name, a sign, a number, a string with its quotes. Empty at the end. */
  const next = (): string => {
    at = wordStart(text, at)
    const end = wordEnd(text, at)
    if (end === at && at < text.length && text[at] !== '\0') throw bad('what is no word')
    const word = text.slice(at, end)
    at = end
    return word
  }
  const counted = () => {
    values += 1
    if (values > MAX_VALUES) throw bad(`more than ${MAX_VALUES} names and values`)
  }
  const plain = (word: string): string | number => {
    if (word.startsWith('"')) return word.slice(1, -1).replace(/\\(["\\])/g, '$1')
    const number = Number(word)
    if (!/^[-+]?[\d.]+$/.test(word) || !Number.isFinite(number)) throw bad('a value is expected')
    return number
  }
  for (let name = next(); name !== ''; name = next()) {
    const section = open.at(-1)!
    if (name === '}') {
      open.pop()
      if (open.length === 0) throw bad('a } too many')
      continue
    }
    if (!/^[\w.+@/-]+$/.test(name) || section.has(name)) throw bad('a name is expected, which is not there yet')
    counted()
    const sign = next()
    if (sign === '{') {
      if (open.length >= MAX_DEPTH) throw bad(`more than ${MAX_DEPTH} sections in one another`)
      const inner = new Map<string, Value>()
      section.set(name, inner)
      open.push(inner)
      continue
    }
    if (sign !== '=') throw bad('= or { is expected')
    const word = next()
    if (word !== '[') {
      section.set(name, plain(word))
      continue
    }
    const list: (string | number)[] = []
    for (let each = next(); each !== ']'; each = next()) {
      if (each === ',') continue
      counted()
      list.push(plain(each))
    }
    section.set(name, list)
  }
  if (open.length > 1) throw bad('it ends in a section')
  return root
}

const SPACES = ' \t\r\n'
const SIGNS = '{}[]=,'
const isNamed = (character: string | undefined): boolean => character !== undefined && /^[\w.+@/-]$/.test(character)

/** Behind spaces and comments. */
function wordStart(text: string, from: number): number {
  let at = from
  for (; at < text.length; at += 1) {
    if (text[at] === '#') {
      const end = text.indexOf('\n', at)
      at = end < 0 ? text.length : end
    } else if (!SPACES.includes(text[at]!)) break
  }
  return at
}

/** The same place where there is no word. */
function wordEnd(text: string, from: number): number {
  if (text[from] !== undefined && SIGNS.includes(text[from])) return from + 1
  let at = from
  if (text[from] !== '"') {
    while (isNamed(text[at])) at += 1
    return at
  }
  for (at += 1; at < text.length && text[at] !== '"'; at += 1) if (text[at] === '\\') at += 1
  return at < text.length ? at + 1 : from
}
