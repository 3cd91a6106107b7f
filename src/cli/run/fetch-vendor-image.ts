import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { cancelled } from '../client/http-client.ts'
import { type PublishedDigest, verifySource } from '../image-add/source-digest.ts'
import { PartFile } from '../part-file.ts'
import type { TransferState } from '../progress.ts'
import type { VendorImage } from './vendor-images.ts'

/** Listings and checksums are a few pages; what is larger is neither. */
const MAX_PAGE_BYTES = 4 * 1024 * 1024
const ANSWER_MS = 60_000
const TRIES = 6

export interface FetchVendorOptions {
  /** Where the vendors' trees are mirrored, `<mirror>/<host of the vendor>/<path>`; absent: at the vendors. */
  readonly mirror: string | undefined
  /** Where it is put. */
  readonly cacheFolder: string
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * Downloads the latest build, going on where an earlier download broke off, and holds it against the vendor's checksum. It lies in
 * the cache then, for the caller to use and to delete; the caller keeps others out of that folder meanwhile.
 * @throws ServiceError `unavailable`, `not-found`; `corrupt` where it is not what the vendor published: then it is thrown away
 */
export async function fetchVendorImage(vendor: VendorImage, options: FetchVendorOptions): Promise<string> {
  const folder = addressOf(vendor.folder, options.mirror)
  const file = await nameIn(folder, vendor.file, options.signal)
  const sums = typeof vendor.sums === 'function' ? vendor.sums(file) : await nameIn(folder, vendor.sums, options.signal)
  const expected = digestIn(await page(new URL(sums, folder), options.signal), file, vendor.algorithm)
  const path = join(options.cacheFolder, file)
  if (await isThere(path, { algorithm: vendor.algorithm, hex: expected }, options.signal)) return path
  const part = await PartFile.open(`${path}.part`, { file, expected })
  try {
    await download(part, new URL(file, folder), options)
    const got = await part.digest(vendor.algorithm)
    if (got !== expected) {
      await part.discard()
      const said = `the ${vendor.algorithm} of ${file} is ${got}, and ${new URL(folder).host} says ${expected}`
      throw new ServiceError('corrupt', `${said}; it was thrown away, try again`)
    }
    await part.finish(path)
    return path
  } finally {
    await part.close()
  }
}

/** An earlier run was cut short after it had downloaded it. */
async function isThere(path: string, published: PublishedDigest, signal: AbortSignal): Promise<boolean> {
  if (!existsSync(path)) return false
  try {
    await verifySource(path, published, signal)
    return true
  } catch (error) {
    if (isServiceError(error, 'corrupt')) return false
    throw error
  }
}

const addressOf = (folder: string, mirror: string | undefined): string => {
  if (mirror === undefined || mirror === '') return folder
  const { host, pathname } = new URL(folder)
  if (!URL.canParse(mirror)) throw new ServiceError('invalid-request', `IMPRINT_VENDOR_IMAGES is no address: ${mirror}`)
  return `${mirror.replace(/\/+$/, '')}/${host}${pathname}`
}

/** @throws ServiceError `not-found` where a folder lists none that fits */
async function nameIn(folder: string, name: string | RegExp, signal: AbortSignal): Promise<string> {
  if (typeof name === 'string') return name
  const listing = await page(new URL(folder), signal)
  const names = [...listing.matchAll(/href="(?:\.\/)?([^"/]+)"/g)].map(([, link]) => link!).filter((link) => name.test(link))
  const last = names.sort(new Intl.Collator('en', { numeric: true }).compare).at(-1)
  if (last !== undefined) return last
  throw new ServiceError('not-found', `${folder} lists no image that is known here; look for one there, and: imprint image add`)
}

/**
 * The checksum of a file, in the forms that vendors use: `<hex>  <file>`, `<hex> *<file>`, `SHA256 (<file>) = <hex>`, or nothing but
 * the checksum.
 * @throws ServiceError `not-found`
 */
export function digestIn(text: string, file: string, algorithm: 'sha256' | 'sha512'): string {
  const length = algorithm === 'sha256' ? 64 : 128
  for (const line of text.split('\n')) {
    const [, plain, named] = /^([0-9a-f]+)(?:\s+\*?(\S+))?\s*$/i.exec(line) ?? []
    const [, other, hex] = /^SHA(?:256|512) \((\S+)\) = ([0-9a-f]+)\s*$/i.exec(line) ?? []
    const digest = plain !== undefined && (named === file || (named === undefined && text.trim() === plain)) ? plain : undefined
    const found = digest ?? (other === file ? hex : undefined)
    if (found?.length === length) return found.toLowerCase()
  }
  throw new ServiceError('not-found', `the vendor's checksums have none for ${file}; it is not used without`)
}

async function download(part: PartFile, url: URL, { signal, onProgress }: FetchVendorOptions): Promise<void> {
  for (let failures = 0; ; ) {
    const before = part.bytes
    try {
      return await downloadOnce(part, url, signal, onProgress)
    } catch (error) {
      if (signal.aborted) throw cancelled()
      failures = part.bytes > before ? 1 : failures + 1
      if (!isServiceError(error, 'unavailable') || failures >= TRIES) throw error
      await wait(200 * 2 ** failures, undefined, { signal }).catch(() => {
        throw cancelled()
      })
    }
  }
}

async function downloadOnce(
  part: PartFile,
  url: URL,
  signal: AbortSignal,
  onProgress: FetchVendorOptions['onProgress'],
): Promise<void> {
  const answer = await ask(url, signal, part.bytes > 0 ? { range: `bytes=${part.bytes}-` } : {})
  if (answer.status === 416) return // it is here already, or will not match its checksum
  if (answer.status !== 206) await part.truncate()
  const start = part.bytes
  const length = Number(answer.headers.get('content-length') ?? Number.NaN)
  const totalBytes = Number.isSafeInteger(length) ? start + length : null
  try {
    for await (const bytes of answer.body ?? []) {
      await part.append(bytes)
      onProgress({ phase: 'Downloading', doneBytes: part.bytes, totalBytes, movedBytes: part.bytes - start })
    }
  } catch (cause) {
    throw brokeOff((cause as Error).message, cause)
  }
  if (totalBytes !== null && part.bytes < totalBytes) throw brokeOff('it ended early')
}

const brokeOff = (how: string, cause?: unknown): ServiceError =>
  new ServiceError('unavailable', `the download broke off: ${how}; the same command goes on from there`, {}, { cause })

async function page(url: URL, signal: AbortSignal): Promise<string> {
  const { body } = await ask(url, signal, {})
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of body ?? []) {
    bytes += part.length
    if (bytes > MAX_PAGE_BYTES) throw new ServiceError('unsupported', `${url.href} is larger than a page of checksums is`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

/** Redirects are followed, from HTTPS to HTTPS only. @throws ServiceError `unavailable`, `not-found`, `denied`, `cancelled` */
async function ask(url: URL, signal: AbortSignal, headers: Record<string, string>): Promise<Response> {
  const slow = new AbortController()
  const timer = setTimeout(() => slow.abort(), ANSWER_MS)
  try {
    const answer = await fetch(url, { headers, signal: AbortSignal.any([signal, slow.signal]) })
    if (url.protocol === 'https:' && !answer.url.startsWith('https:')) {
      throw new ServiceError('denied', `${url.href} leads to ${answer.url}, away from HTTPS: it is not followed`)
    }
    if (answer.ok || answer.status === 416) return answer
    await answer.body?.cancel()
    const code = answer.status === 404 ? 'not-found' : 'unavailable'
    throw new ServiceError(code, `${url.href} was answered with ${answer.status}; try again, or: imprint image add FILE`)
  } catch (cause) {
    if (isServiceError(cause)) throw cause
    if (signal.aborted) throw cancelled()
    const why = slow.signal.aborted ? 'no answer in time' : ((cause as Error).cause as Error | undefined)?.message
    const message = `${url.host} cannot be reached: ${why ?? (cause as Error).message}; try again, or: imprint image add FILE`
    throw new ServiceError('unavailable', message, {}, { cause })
  } finally {
    clearTimeout(timer)
  }
}
