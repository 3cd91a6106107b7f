import { ServiceError } from '../../base/errors.ts'
import { isImageId } from '../find-image.ts'

/** What `POST /v2/images/{id}/import` asks for. */
export interface ImportRequest {
  readonly method: ImportMethod
  /** The stores asked for; absent: the one there is. */
  readonly stores?: readonly string[]
  readonly allStores: boolean
  readonly allStoresMustSucceed: boolean
}
export type ImportMethod =
  | ({ readonly name: 'glance-direct' } & FileFacts)
  | ({ readonly name: 'web-download'; readonly uri: string } & FileFacts)
  | { readonly name: 'copy-image' }

/** What is said of the file that comes. */
interface FileFacts {
  readonly digest?: ExpectedDigest
  /** Id of the image whose disk the file is a difference to: a qcow2 with a backing file, a VHD with a parent. */
  readonly parentImage?: string
  /** Of an archive or a package that holds several disks, the one that is meant. */
  readonly member?: string
}

/** The digest that the publisher of a file names: of the file as it is downloaded, or of what is packed in it. */
export interface ExpectedDigest {
  readonly algorithm: 'sha256' | 'sha512'
  /** Lower-case hex. */
  readonly value: string
}

export const importMethods = ['glance-direct', 'web-download', 'copy-image'] as const
const hexLength = { sha256: 64, sha512: 128 } as const
const MAX_STORES = 64
const MAX_MEMBER_CHARACTERS = 1024

/**
 * Checks the body as Glance does. Besides what Glance takes, `method` may have `sha256` or `sha512`, or the pair
 * `os_hash_algo` and `os_hash_value`: an import whose bytes have another digest fails. And `parent_image`, without which a file that is a
 * difference to another is refused: the name that it says itself is never followed. And `member`, of an archive that holds several disks.
 * @throws ServiceError `invalid-request`
 */
export function importRequestFrom(body: unknown): ImportRequest {
  const given = object(body, 'the body')
  const method = object(given.method, '"method"')
  const { name } = method
  const allStores = boolean(given.all_stores ?? false, 'all_stores')
  const allStoresMustSucceed = boolean(given.all_stores_must_succeed ?? true, 'all_stores_must_succeed')
  if (allStores && given.stores !== undefined) refuse('"all_stores" and "stores" cannot both be given')
  return {
    method: methodFrom(name, method),
    allStores,
    allStoresMustSucceed,
    ...(given.stores === undefined ? {} : { stores: storesFrom(given.stores) }),
  }
}

function methodFrom(name: unknown, method: Readonly<Record<string, unknown>>): ImportMethod {
  const digest = digestFrom(method)
  const parentImage = parentFrom(method.parent_image)
  const member = memberFrom(method.member)
  const facts: FileFacts = {
    ...(digest ? { digest } : {}),
    ...(parentImage ? { parentImage } : {}),
    ...(member === undefined ? {} : { member }),
  }
  switch (name) {
    case 'glance-direct':
      return { name, ...facts }
    case 'copy-image':
      return { name }
    case 'web-download':
      if (typeof method.uri !== 'string') return refuse('web-download needs "uri" in its "method"')
      return { name, uri: method.uri, ...facts }
    default:
      return refuse(`the import method must be one of ${importMethods.join(', ')}`)
  }
}

function parentFrom(value: unknown): string | undefined {
  if (value === undefined) return undefined
  return typeof value === 'string' && isImageId(value) ? value.toLowerCase() : refuse('"parent_image" must be the id of an image')
}

function memberFrom(value: unknown): string | undefined {
  if (value === undefined) return undefined
  const isName = typeof value === 'string' && value !== '' && value.length <= MAX_MEMBER_CHARACTERS
  return isName ? value : refuse('"member" must be the name of a file in the archive')
}

function digestFrom(method: Readonly<Record<string, unknown>>): ExpectedDigest | undefined {
  const named = method.os_hash_algo
  const pairs: [unknown, unknown][] = [
    ['sha256', method.sha256],
    ['sha512', method.sha512],
    [
      named ?? (method.os_hash_value === undefined ? undefined : ''),
      named === undefined ? method.os_hash_value : (method.os_hash_value ?? ''),
    ],
  ]
  const given = pairs.filter(([, value]) => value !== undefined)
  const [first, second] = given
  if (!first) return undefined
  if (second) return refuse('give one digest: sha256, or sha512, or os_hash_algo with os_hash_value')
  const [algorithm, value] = first
  if (algorithm !== 'sha256' && algorithm !== 'sha512') return refuse('os_hash_algo must be sha256 or sha512')
  if (typeof value !== 'string' || value.length !== hexLength[algorithm] || !/^[0-9a-f]+$/i.test(value)) {
    return refuse(`the ${algorithm} must be ${hexLength[algorithm]} digits of hex`)
  }
  return { algorithm, value: value.toLowerCase() }
}

function storesFrom(value: unknown): readonly string[] {
  const fits =
    Array.isArray(value) && value.length > 0 && value.length <= MAX_STORES && value.every((store) => typeof store === 'string')
  return fits ? [...new Set(value as string[])] : refuse('"stores" must be a list of names of stores')
}
const boolean = (value: unknown, name: string): boolean =>
  typeof value === 'boolean' ? value : refuse(`"${name}" must be true or false`)
function object(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>
  return refuse(`${what} must be a JSON object`)
}
function refuse(problem: string): never {
  throw new ServiceError('invalid-request', `this import cannot be begun: ${problem}`)
}
