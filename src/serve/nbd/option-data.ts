import { MAX_STRING_BYTES } from './protocol.ts'

/** What a client may ask in one option; more is more than the protocol has. */
const MAX_INFORMATION_REQUESTS = 64
const MAX_QUERIES = 64

/** The data of NBD_OPT_INFO and NBD_OPT_GO. */
export interface ExportRequest {
  readonly name: string
  readonly information: readonly number[]
}
/** The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface ContextRequest {
  readonly name: string
  readonly queries: readonly string[]
}
/** What is wrong with an option's data, for the client's people. */
export interface Malformed {
  readonly problem: string
}
export const isMalformed = (parsed: object | string): parsed is Malformed => typeof parsed === 'object' && 'problem' in parsed

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** "Strings … UTF-8, … not NUL-terminated, no larger than 4096 bytes." */
export function parseString(bytes: Buffer): string | Malformed {
  if (bytes.length > MAX_STRING_BYTES) return { problem: `a string of ${bytes.length} bytes; ${MAX_STRING_BYTES} are allowed` }
  if (bytes.includes(0)) return { problem: 'a string with a NUL in it' }
  try {
    return utf8.decode(bytes)
  } catch {
    return { problem: 'a string that is not UTF-8' }
  }
}

/** 32 bits: length of the name; the name; 16 bits: number of information requests; 16 bits each. */
export function parseExportRequest(data: Buffer): ExportRequest | Malformed {
  const named = takeString(data, 0)
  if (isMalformed(named)) return named
  const at = named.end
  if (data.length < at + 2) return { problem: 'the data ends before the number of information requests' }
  const count = data.readUInt16BE(at)
  if (data.length !== at + 2 + 2 * count) return { problem: 'the data is not as long as its information requests' }
  if (count > MAX_INFORMATION_REQUESTS)
    return { problem: `${count} information requests; ${MAX_INFORMATION_REQUESTS} are allowed` }
  return { name: named.text, information: Array.from({ length: count }, (_, index) => data.readUInt16BE(at + 2 + 2 * index)) }
}

/** 32 bits: length of the name; the name; 32 bits: number of queries; for each 32 bits of length and the query. */
export function parseContextRequest(data: Buffer): ContextRequest | Malformed {
  const named = takeString(data, 0)
  if (isMalformed(named)) return named
  let at = named.end
  if (data.length < at + 4) return { problem: 'the data ends before the number of queries' }
  const count = data.readUInt32BE(at)
  if (count > MAX_QUERIES) return { problem: `${count} queries; ${MAX_QUERIES} are allowed` }
  at += 4
  const queries: string[] = []
  for (let index = 0; index < count; index += 1) {
    const query = takeString(data, at)
    if (isMalformed(query)) return query
    queries.push(query.text)
    at = query.end
  }
  if (at !== data.length) return { problem: 'the data goes on after its queries' }
  return { name: named.text, queries }
}

function takeString(data: Buffer, at: number): { readonly text: string; readonly end: number } | Malformed {
  if (data.length < at + 4) return { problem: 'the data ends before the length of a string' }
  const bytes = data.readUInt32BE(at)
  if (bytes > data.length - at - 4) return { problem: 'a string is longer than the data it is in' }
  const end = at + 4 + bytes
  const text = parseString(data.subarray(at + 4, end))
  return isMalformed(text) ? text : { text, end }
}
