import { ServiceError } from '../../../base/errors.ts'

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

/**
 * The part of a file that a request asks for: by `Range`, or by `Content-Range` as older clients of Glance have it.
 * @returns undefined: all of it
 * @throws ServiceError `invalid-request` for several ranges at once; `range-not-satisfiable`
 */
export function rangeFrom(
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
  size: number,
): ByteRange | undefined {
  const { range, 'content-range': contentRange } = headers
  if (typeof range === 'string') return fromRange(range, size)
  if (typeof contentRange === 'string') return fromContentRange(contentRange, size)
  return undefined
}

function fromRange(text: string, size: number): ByteRange {
  if (text.includes(','))
    throw new ServiceError('invalid-request', 'several ranges in one request are not served: ask for one at a time')
  const [, first = '', last = ''] = /^\s*bytes\s*=\s*(\d{0,16})\s*-\s*(\d{0,16})\s*$/i.exec(text) ?? []
  if (first === '' && last === '') throw unsatisfiable(size)
  if (first === '') {
    const length = Math.min(Number(last), size)
    if (length === 0) throw unsatisfiable(size)
    return { offset: size - length, length }
  }
  const offset = Number(first)
  const end = last === '' ? size : Math.min(Number(last) + 1, size)
  if (offset >= end) throw unsatisfiable(size)
  return { offset, length: end - offset }
}

function fromContentRange(text: string, size: number): ByteRange {
  const [, first = '', last = '', whole = ''] = /^\s*bytes\s+(\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)\s*$/i.exec(text) ?? []
  const [offset, end] = [Number(first), Number(last) + 1]
  const fits = first !== '' && offset < end && end <= size && (whole === '*' || Number(whole) >= end)
  if (!fits) throw unsatisfiable(size)
  return { offset, length: end - offset }
}

const unsatisfiable = (size: number): ServiceError =>
  new ServiceError('range-not-satisfiable', `the range lies outside the image, which has ${size} bytes`, { size })
