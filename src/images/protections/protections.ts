import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { matchesPattern } from './name-pattern.ts'

export const verbs = ['create', 'read', 'update', 'delete'] as const
export type Verb = (typeof verbs)[number]

/** Says who may do what with which custom properties of images. */
export interface PropertyProtections {
  /** False where nobody set rules: every property is then free to whoever may change the image. */
  readonly enabled: boolean
  check(caller: Caller, name: string, verb: Verb): boolean
}

/** Where there are no rules. */
export const noProtections: PropertyProtections = { enabled: false, check: () => true }

/**
 * The rules as an operator writes them (docs/property-protections.md):
 *
 * ```json
 * { "policies": { "billing": { "roles": ["accountant"], "projects": ["…"], "users": ["…"] } },
 *   "rules": [ { "property": "x_billing_*", "create": ["policy:billing"], "read": ["@"], "update": ["admin"], "delete": ["!"] },
 *              { "property": "*", "create": ["@"], "read": ["@"], "update": ["@"], "delete": ["@"] } ] }
 * ```
 *
 * The first rule whose pattern matches decides. A property that no rule matches is closed to everyone, as in Glance.
 */
interface Rule {
  readonly pattern: string
  readonly allowed: Readonly<Record<Verb, (caller: Caller) => boolean>>
}
/** Who satisfies a policy: one of the roles, or one of the projects, or one of the users. */
interface Policy {
  readonly roles: ReadonlySet<string>
  readonly projects: ReadonlySet<string>
  readonly users: ReadonlySet<string>
}

const MAX_RULES = 1000 // each property of each image that is shown is held against them
const MAX_NAMES = 100
const MAX_TEXT = 255

/**
 * @param text the rules file
 * @throws ServiceError `invalid-request`, saying which rule is wrong: a service with a broken rules file must not start
 */
export function parseProtections(text: string): PropertyProtections {
  let file: unknown
  try {
    file = JSON.parse(text)
  } catch (cause) {
    throw new ServiceError('invalid-request', 'the file of property protections is not well-formed JSON', {}, { cause })
  }
  const { policies = {}, rules = [], ...rest } = members(file, 'the file of property protections')
  refuseRest(rest, 'the file of property protections')
  const known = new Map(Object.entries(members(policies, 'policies')).map(([name, policy]) => [name, policyFrom(name, policy)]))
  if (!Array.isArray(rules) || rules.length > MAX_RULES) refuse(`rules must be a list of at most ${MAX_RULES}`)
  const inOrder = (rules as readonly unknown[]).map((rule, index) => ruleFrom(rule, `rules[${index}]`, known))
  if (inOrder.length === 0) return noProtections
  return {
    enabled: true,
    check(caller, name, verb) {
      const rule = inOrder.find(({ pattern }) => matchesPattern(name, pattern))
      return rule?.allowed[verb](caller) ?? false
    },
  }
}

/** The custom properties that the caller may see. */
export function readable(
  protections: PropertyProtections,
  caller: Caller,
  properties: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  if (!protections.enabled) return properties
  return Object.fromEntries(Object.entries(properties).filter(([name]) => protections.check(caller, name, 'read')))
}

/** @throws ServiceError `denied`, in the same words whether or not the property is there */
export function assertAllowed(protections: PropertyProtections, caller: Caller, name: string, verb: Verb): void {
  if (!protections.check(caller, name, verb)) throw refusal(name, verb)
}

export const refusal = (name: string, verb: Verb): ServiceError =>
  new ServiceError('denied', `property ${JSON.stringify(name.slice(0, MAX_TEXT))} is protected: you may not ${verb} it`)

function ruleFrom(value: unknown, where: string, policies: ReadonlyMap<string, Policy>): Rule {
  const { property, create, read, update, delete: remove, ...rest } = members(value, where)
  refuseRest(rest, where)
  if (typeof property !== 'string' || property === '' || property.length > MAX_TEXT) {
    return refuse(`${where}.property must be a name, in which * stands for any characters`)
  }
  const allow = (names: unknown, verb: Verb) => allowanceFrom(names, `${where}.${verb}`, policies)
  return {
    pattern: property,
    allowed: {
      create: allow(create, 'create'),
      read: allow(read, 'read'),
      update: allow(update, 'update'),
      delete: allow(remove, 'delete'),
    },
  }
}

function allowanceFrom(value: unknown, where: string, policies: ReadonlyMap<string, Policy>): (caller: Caller) => boolean {
  const names = textsFrom(value, where)
  if (names.includes('!') && names.includes('@')) return refuse(`${where} says both everyone (@) and nobody (!)`)
  if (names.includes('!')) return () => false
  if (names.includes('@')) return () => true
  const roles = names.filter((name) => !name.startsWith('policy:')).map((name) => name.toLowerCase())
  const named = names
    .filter((name) => name.startsWith('policy:'))
    .map(
      (name) => policies.get(name.slice('policy:'.length)) ?? refuse(`${where} names ${name}, which is not among the policies`),
    )
  return (caller) => hasRole(caller, roles) || named.some((policy) => satisfies(policy, caller))
}

function policyFrom(name: string, value: unknown): Policy {
  const where = `policies.${name}`
  const { roles = [], projects = [], users = [], ...rest } = members(value, where)
  refuseRest(rest, where)
  return {
    roles: new Set(textsFrom(roles, `${where}.roles`).map((role) => role.toLowerCase())),
    projects: new Set(textsFrom(projects, `${where}.projects`)),
    users: new Set(textsFrom(users, `${where}.users`)),
  }
}

const satisfies = ({ roles, projects, users }: Policy, caller: Caller): boolean =>
  hasRole(caller, roles) || (caller.projectId !== null && projects.has(caller.projectId)) || users.has(caller.userId)

function hasRole(caller: Caller, wanted: Iterable<string>): boolean {
  const held = new Set([...caller.roles].map((role) => role.toLowerCase()))
  for (const role of wanted) if (held.has(role)) return true
  return false
}

function textsFrom(value: unknown, where: string): readonly string[] {
  const fits = Array.isArray(value) && value.length <= MAX_NAMES && value.every((item) => typeof item === 'string')
  return fits
    ? (value as readonly string[])
    : refuse(`${where} must be a list of at most ${MAX_NAMES} names, or empty for nobody`)
}

function members(value: unknown, where: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>
  return refuse(`${where} must be a JSON object`)
}
function refuseRest(rest: object, where: string): void {
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) refuse(`${where} has ${JSON.stringify(unknown)}, which means nothing here`)
}
function refuse(problem: string): never {
  throw new ServiceError('invalid-request', `property protections: ${problem}`)
}
