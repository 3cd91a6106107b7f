import { ServiceError } from '../../../base/errors.ts'
import { readServices } from '../customisation/services.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { readSoftware } from '../software/index.ts'
import { type Level, levels } from './finding.ts'
import type { Look, NewCheck } from './look.ts'

/** What an operator requires of images: that they carry an agent, a driver, a configuration. */
export interface Requirement {
  /** For people: `cloud-init`. */
  readonly name: string
  /** Why, a sentence; empty: it is not said. */
  readonly why: string
  readonly level: Level
  /** One of them must be there. */
  readonly anyOf: readonly Evidence[]
}
export type Evidence =
  | { readonly kind: 'package'; readonly name: string }
  /** Absolute, links followed; `*` stands for characters of one name. */
  | { readonly kind: 'file'; readonly path: string }
  /** `cloud-init.service`, enabled; without its ending, `.service` is meant. */
  | { readonly kind: 'service'; readonly unit: string }

const MAX_REQUIREMENTS = 200
const MAX_EVIDENCE = 50
const MAX_TEXT = 1024

/**
 * Rules as data: `{"requires": [{"name": "…", "why": "…", "level": "medium", "anyOf": [{"package": "cloud-init"}, {"file": "/usr/bin/cloud-*"},
 * {"service": "cloud-init.service"}]}]}`; docs/findings.md has more. A word that is not known is refused, so that none is passed over.
 * @throws ServiceError `invalid-request`, saying where
 */
export function parseRequirements(value: unknown): readonly Requirement[] {
  const { requires } = fieldsOf(value, 'the rules', ['requires'])
  return listOf(requires, 'requires', MAX_REQUIREMENTS).map((each, at) => {
    const where = `requires[${at}]`
    const fields = fieldsOf(each, where, ['name', 'why', 'level', 'anyOf'])
    const anyOf = listOf(fields.anyOf, `${where}.anyOf`, MAX_EVIDENCE).map((one, index) =>
      evidenceOf(one, `${where}.anyOf[${index}]`),
    )
    if (anyOf.length === 0) throw refuse(`${where}.anyOf`, 'must have something in it')
    const level = fields.level ?? 'high'
    if (!levels.includes(level as Level)) throw refuse(`${where}.level`, `must be one of ${levels.join(', ')}`)
    return {
      name: fields.name === undefined ? anyOf.map(wordsOf).join(' or ') : textOf(fields.name, `${where}.name`),
      why: fields.why === undefined ? '' : textOf(fields.why, `${where}.why`),
      level: level as Level,
      anyOf,
    }
  })
}

function evidenceOf(value: unknown, where: string): Evidence {
  const fields = fieldsOf(value, where, ['package', 'file', 'service'])
  const [[kind, given] = [], ...more] = Object.entries(fields)
  if (kind === undefined || more.length > 0) throw refuse(where, 'must have one of package, file, service')
  const text = textOf(given, `${where}.${kind}`)
  if (kind === 'package') return { kind, name: text }
  if (kind === 'service') return { kind, unit: /\.[a-z]+$/.test(text) ? text : `${text}.service` }
  if (!text.startsWith('/')) throw refuse(`${where}.file`, 'must begin with /')
  return { kind: 'file', path: text }
}

function fieldsOf(value: unknown, where: string, known: readonly string[]): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse(where, 'must be an object')
  const stranger = Object.keys(value).find((name) => !known.includes(name))
  if (stranger !== undefined) throw refuse(where, `has "${stranger}", which is none of ${known.join(', ')}`)
  return value as Record<string, unknown>
}

function listOf(value: unknown, where: string, most: number): readonly unknown[] {
  if (!Array.isArray(value)) throw refuse(where, 'must be a list')
  if (value.length > most) throw refuse(where, `has more than ${most} members`)
  return value
}

function textOf(value: unknown, where: string): string {
  if (typeof value === 'string' && value !== '' && value.length <= MAX_TEXT) return value
  throw refuse(where, `must be a text of 1 to ${MAX_TEXT} characters`)
}

const refuse = (where: string, problem: string): ServiceError => new ServiceError('invalid-request', `${where} ${problem}`)

const wordsOf = (evidence: Evidence): string => {
  if (evidence.kind === 'package') return `the package ${evidence.name}`
  return evidence.kind === 'file' ? `the file ${evidence.path}` : `the service ${evidence.unit}`
}

/** Whether a tree has what is required. What cannot be told is not held against it, and makes the look incomplete. */
export const required =
  (requirements: readonly Requirement[]): NewCheck =>
  (look) => ({
    async places() {
      if (requirements.length === 0) return
      const facts = await factsOf(look, requirements)
      for (const { name, why, level, anyOf } of requirements) {
        const answers = []
        for (const evidence of anyOf) answers.push(await isThere(look, evidence, facts))
        if (answers.includes(true)) continue
        if (answers.includes(undefined)) look.unseen(`whether ${name} is there could not be told`)
        else
          look.add(
            'agent-missing',
            null,
            `${name}: there is none of ${anyOf.map(wordsOf).join(', ')}${why === '' ? '' : `; ${why}`}`,
            level,
          )
      }
    },
  })

interface Facts {
  /** Undefined: they could not be read. */
  readonly packages: ReadonlySet<string> | undefined
  readonly services: ReadonlySet<string> | undefined
}

async function factsOf(look: Look, requirements: readonly Requirement[]): Promise<Facts> {
  const asks = (kind: Evidence['kind']) => requirements.some(({ anyOf }) => anyOf.some((each) => each.kind === kind))
  return {
    packages: asks('package') ? await packagesOf(look) : new Set(),
    services: asks('service')
      ? await look.attempt('enabled services', async () => new Set((await readServices(look.tree)).map(({ unit }) => unit)))
      : new Set(),
  }
}

/** Undefined where no packaging system is in use, or what it says cannot be read. */
async function packagesOf(look: Look): Promise<ReadonlySet<string> | undefined> {
  const { packages, notes, failures } = await readSoftware({ tree: look.tree })
  for (const note of [...notes, ...failures.map(({ message }) => message)]) look.unseen(note)
  return failures.length === 0 && packages.length > 0 ? new Set(packages.map(({ name }) => name)) : undefined
}

async function isThere(look: Look, evidence: Evidence, { packages, services }: Facts): Promise<boolean | undefined> {
  if (evidence.kind === 'package') return packages?.has(evidence.name)
  if (evidence.kind === 'service') return services?.has(evidence.unit)
  return look.attempt(evidence.path, () => fits(look.tree, evidence.path))
}

const MAX_NAMES = 100_000

/** Whether a path that may have `*` in it names something. */
async function fits(tree: FileTree, path: string): Promise<boolean> {
  const names = path.split('/').filter(Boolean)
  let folders = ['']
  let looked = 0
  for (const [at, name] of names.entries()) {
    const next: string[] = []
    for (const folder of folders) {
      if (!name.includes('*')) {
        if (at < names.length - 1 || (await tree.find(`${folder}/${name}`))) next.push(`${folder}/${name}`)
        continue
      }
      for await (const entry of tree.list(folder === '' ? '/' : folder)) {
        looked += 1
        if (looked > MAX_NAMES) throw new ServiceError('too-large', `more than ${MAX_NAMES} names to hold against ${path}`)
        if (isLike(entry.name, name)) next.push(`${folder}/${entry.name}`)
      }
    }
    folders = next
  }
  return folders.length > 0
}

/** `*` stands for any characters: the parts between are looked for from left to right, each once. */
export function isLike(name: string, pattern: string): boolean {
  const [first = '', ...rest] = pattern.split('*')
  const last = rest.pop()
  if (last === undefined) return name === pattern
  if (!name.startsWith(first) || !name.endsWith(last) || name.length < first.length + last.length) return false
  let at = first.length
  for (const part of rest) {
    const found = name.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return at <= name.length - last.length
}
