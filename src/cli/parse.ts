import { type Command, commonOptions, type OptionSpec, optionName } from './command.ts'
import { UsageError } from './exit-codes.ts'
import { safeText } from './safe-text.ts'

export interface Parsed {
  readonly input: Readonly<Record<string, unknown>>
  readonly json: boolean
  readonly help: boolean
}

/**
 * @param words what was typed after the command's name
 * @throws UsageError naming the word that is wrong
 */
export function parseWords(command: Command, words: readonly string[]): Parsed {
  const specs: Readonly<Record<string, OptionSpec>> = { ...command.options, ...commonOptions }
  const byName = new Map(Object.keys(specs).map((key) => [optionName(key), key]))
  const values: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  const positional: string[] = []
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at]!
    if (word === '--') {
      positional.push(...words.slice(at + 1))
      break
    }
    if (!word.startsWith('-') || word === '-') {
      positional.push(word)
      continue
    }
    const [name, inline] = splitOption(word === '-h' ? '--help' : word)
    const key = byName.get(name)
    if (key === undefined) throw new UsageError(unknownOption(command, name, [...byName.keys()]))
    const spec = specs[key]!
    if (spec.type === 'flag') {
      if (inline !== undefined) throw new UsageError(`${name} takes no value`)
      values[key] = true
      continue
    }
    const value = inline ?? words[++at]
    if (value === undefined) throw new UsageError(`${name} needs a value`)
    if (spec.type === 'list') values[key] = [...((values[key] as string[] | undefined) ?? []), value]
    else if (values[key] !== undefined) throw new UsageError(`${name} is given twice`)
    else values[key] = readValue(name, spec, value)
  }
  const help = values.help === true
  const json = values.json === true
  if (help) return { input: {}, json, help }
  return { input: { ...defaults(command), ...values, ...bindArguments(command, positional) }, json, help }
}

const splitOption = (word: string): [string, string | undefined] => {
  const equals = word.indexOf('=')
  return equals < 0 ? [word, undefined] : [word.slice(0, equals), word.slice(equals + 1)]
}

const defaults = (command: Command): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(command.options).flatMap(([key, { type }]): [string, unknown][] =>
      type === 'flag' ? [[key, false]] : type === 'list' ? [[key, []]] : [],
    ),
  )

function readValue(name: string, spec: OptionSpec, value: string): string | number {
  if (spec.type === 'choice' && !spec.choices.includes(value)) {
    throw new UsageError(`${name} takes ${spec.choices.join(', ')}; not "${safeText(value)}"`)
  }
  if (spec.type !== 'count') return value
  const number = Number(value)
  const { least = 0, most = 2 ** 31 - 1 } = spec
  if (!/^-?\d+$/.test(value) || number < least || number > most) {
    throw new UsageError(`${name} takes a whole number from ${least} to ${most}; not "${safeText(value)}"`)
  }
  return number
}

function bindArguments(command: Command, positional: readonly string[]): Record<string, unknown> {
  const bound: Record<string, unknown> = {}
  let left = [...positional]
  for (const [name, { optional, many }] of Object.entries(command.arguments)) {
    const label = name.replace(/[A-Z]/g, (letter) => `-${letter}`).toUpperCase()
    if (left.length === 0 && !optional) throw new UsageError(`${label} is missing; see: imprint ${command.name} --help`)
    if (many) {
      bound[name] = left
      left = []
    } else {
      bound[name] = left.shift()
    }
  }
  if (left.length > 0) {
    throw new UsageError(`"${safeText(left[0]!)}" is one word too many; see: imprint ${command.name} --help`)
  }
  return bound
}

function unknownOption(command: Command, name: string, known: readonly string[]): string {
  const near = nearest(name, known)
  return `imprint ${command.name} has no option ${safeText(name)}${near ? `; did you mean ${near}?` : ` (see --help)`}`
}

/** The known word that needs the fewest changes, if those are few. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const scored = known.map((candidate) => ({ candidate, distance: distanceOf(word.slice(0, 64), candidate) }))
  const best = scored.sort((a, b) => a.distance - b.distance)[0]
  return best && best.distance <= Math.max(2, Math.floor(word.length / 3)) && best.distance < word.length - 1
    ? best.candidate
    : undefined
}

/** Levenshtein: inserted, removed and changed letters. */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}
