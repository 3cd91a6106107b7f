import { ServiceError } from '../../../base/errors.ts'
import { assertChange, type Change } from '../../../images/patch-image.ts'
import { jsonFrom } from './json-body.ts'

/** The two media types of a patch. In the older one the member that names the operation holds the path. */
const editions: Readonly<Record<string, 'named' | 'listed'>> = {
  'application/openstack-images-v2.0-json-patch': 'named',
  'application/openstack-images-v2.1-json-patch': 'listed',
}
export const patchMediaTypes = Object.keys(editions)
const editionOf = (contentType = '') => editions[contentType.split(';', 1)[0]?.trim().toLowerCase() ?? '']
export const isPatch = (contentType: string | undefined): boolean => editionOf(contentType) !== undefined

const operations = ['add', 'remove', 'replace'] as const
type Operation = (typeof operations)[number]

const MAX_CHANGES = 1000

const bad = (problem: string): never => {
  throw new ServiceError('invalid-request', problem)
}

/** @throws ServiceError `unsupported` for another media type; `invalid-request`; `denied` for what may not be changed */
export function changesFrom(contentType: string | undefined, bytes: unknown): readonly Change[] {
  const edition = editionOf(contentType)
  if (!edition) throw new ServiceError('unsupported', `a patch comes as ${patchMediaTypes.join(' or ')}`)
  const body = jsonFrom(bytes)
  if (!Array.isArray(body)) return bad('a patch is a JSON array of operations')
  if (body.length > MAX_CHANGES) throw new ServiceError('too-large', `a patch has at most ${MAX_CHANGES} operations`)
  return body.map((item: unknown) => changeFrom(item, edition))
}

function changeFrom(item: unknown, edition: 'named' | 'listed'): Change {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) return bad('an operation of a patch is a JSON object')
  const members = item as Readonly<Record<string, unknown>>
  const { op, pointer } = edition === 'listed' ? listed(members) : named(members)
  const path = pathFrom(pointer)
  const [name = ''] = path
  const depth = name === 'locations' && op !== 'replace' ? 2 : 1
  if (path.length !== depth) bad(`the path "${show(pointer)}" names nothing that can be changed: give one attribute or property`)
  if (op === 'remove') return checked({ op, name })
  if (!Object.hasOwn(members, 'value')) bad(`operation "${op}" needs a member "value"`)
  return checked({ op, name, value: members.value, ...(edition === 'named' ? { addOnlyNew: true } : {}) })
}

function checked(change: Change): Change {
  assertChange(change)
  return change
}

function listed(members: Readonly<Record<string, unknown>>): { op: Operation; pointer: unknown } {
  const op =
    operations.find((name) => name === members.op) ?? bad(`an operation of a patch has a member "op": ${operations.join(', ')}`)
  if (!Object.hasOwn(members, 'path')) bad('an operation of a patch has a member "path"')
  return { op, pointer: members.path }
}

function named(members: Readonly<Record<string, unknown>>): { op: Operation; pointer: unknown } {
  const found = operations.filter((name) => Object.hasOwn(members, name))
  const [op] = found
  if (op === undefined || found.length > 1)
    return bad(`an operation of a patch has exactly one member of ${operations.join(', ')}`)
  return { op, pointer: members[op] }
}

const show = (pointer: unknown): string => String(pointer).slice(0, 80)

/** The parts of a JSON pointer (RFC 6901), which must be there and not empty. */
function pathFrom(pointer: unknown): string[] {
  if (typeof pointer !== 'string' || !pointer.startsWith('/')) return bad(`the path "${show(pointer)}" does not start with "/"`)
  if (/~(?![01])/.test(pointer)) return bad(`the path "${show(pointer)}" has a "~" that is neither ~0 nor ~1`)
  const parts = pointer
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~').trim())
  if (parts.some((part) => part === '')) return bad(`the path "${show(pointer)}" has an empty part`)
  return parts
}
