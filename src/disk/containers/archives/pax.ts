import { refuseArchive } from './archive.ts'
import { latin1 } from './tar-header.ts'

/** What headers say of the member that follows them. */
export interface Announced {
  path?: Uint8Array
  /** Of what is stored. */
  bytes?: number
  sparse?: AnnouncedSparse
}
/** A file with holes, by the words of GNU tar's records. Numbers as they are written: nothing was compared yet. */
export interface AnnouncedSparse {
  /** `GNU.sparse.major` and `minor`; absent: the map is in the records. */
  major?: number
  minor?: number
  name?: Uint8Array
  /** With its holes: `size`, or `realsize` in 1.0. */
  bytes?: number
  /** `numblocks`. */
  runs?: number
  /** Offset and length in turn: of `map`, or of `offset` and `numbytes`. */
  numbers: number[]
  /** Which of the two: a file has one of them. */
  listedBy?: 'map' | 'records'
}

/**
 * Records of the form `length key=value\n`. All but the path, the size and the map of holes are about what a disk has no use for. Source:
 * POSIX.1-2017, pax, "pax Extended Header"; GNU tar manual, "Storing Sparse Files", 0.0 to 1.0.
 * @param start of `bytes` in the archive
 * @throws ServiceError `invalid-image`
 */
export function readPax(bytes: Uint8Array, start: number): Announced {
  const answer: Announced = {}
  const bad = (at: number, problem: string) =>
    refuseArchive('tar', 'malformed', `the pax record at byte ${start + at} ${problem}`, { offset: start + at })
  for (let at = 0; at < bytes.length; ) {
    const [, digits, key] = /^([1-9]\d{0,6}) ([^=]{1,200})=/.exec(latin1(bytes.subarray(at, at + 210))) ?? []
    const end = at + Number(digits)
    if (digits === undefined || key === undefined || end > bytes.length || bytes[end - 1] !== 0x0a)
      throw bad(at, 'is not "length key=value"')
    const from = at + digits.length + key.length + 2
    if (from > end - 1) throw bad(at, 'is shorter than its key')
    const value = bytes.subarray(from, end - 1)
    const number = () => {
      const text = latin1(value)
      if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(Number(text)))
        throw bad(at, `has a ${key.replace(/^.*\./, '')} that is no number below 2^53`)
      return Number(text)
    }
    if (key === 'path') answer.path = value
    if (key === 'size') answer.bytes = number()
    if (key.startsWith(SPARSE)) {
      answer.sparse ??= { numbers: [] }
      const problem = noteSparse(answer.sparse, key.slice(SPARSE.length), value, number)
      if (problem !== undefined) throw bad(at, problem)
    }
    at = end
  }
  return answer
}
const SPARSE = 'GNU.sparse.'

/** @returns what is wrong with it */
function noteSparse(sparse: AnnouncedSparse, key: string, value: Uint8Array, number: () => number): string | undefined {
  switch (key) {
    case 'major':
    case 'minor':
      sparse[key] = number()
      return undefined
    case 'name':
      sparse.name = value
      return undefined
    case 'size':
    case 'realsize':
      if (sparse.bytes !== undefined) return 'says the size of a sparse file again'
      sparse.bytes = number()
      return undefined
    case 'numblocks':
      sparse.runs = number()
      return undefined
    case 'offset':
    case 'numbytes':
      if (sparse.listedBy === 'map') return 'is about a run of a sparse file that has a map'
      if ((sparse.numbers.length % 2 === 0) !== (key === 'offset')) return 'is not an offset and then its numbytes, in turn'
      sparse.listedBy = 'records'
      sparse.numbers.push(number())
      return undefined
    case 'map':
      if (sparse.listedBy !== undefined) return 'is a second map of a sparse file'
      sparse.listedBy = 'map'
      return readMap(sparse.numbers, latin1(value))
    default:
      return `has the unknown key GNU.sparse.${key.slice(0, 40)}`
  }
}

/** Numbers with commas between them. @returns what is wrong with it */
function readMap(numbers: number[], text: string): string | undefined {
  for (let at = 0; at <= text.length && text !== ''; ) {
    const comma = text.indexOf(',', at)
    const end = comma < 0 ? text.length : comma
    const digits = text.slice(at, Math.min(end, at + 20))
    if (!/^\d{1,16}$/.test(digits) || !Number.isSafeInteger(Number(digits)))
      return 'has a map of other things than numbers below 2^53'
    numbers.push(Number(digits))
    at = end + 1
  }
  return numbers.length % 2 === 0 ? undefined : 'has a map with an offset that has no length'
}
