import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { cancelled } from '../client/http-client.ts'
import { UsageError } from '../exit-codes.ts'
import { safeText } from '../safe-text.ts'

/** What a publisher says of a file. */
export interface PublishedDigest {
  readonly algorithm: 'md5' | 'sha1' | 'sha256' | 'sha512'
  /** Lower-case hex. */
  readonly hex: string
}

const hexLength = { md5: 32, sha1: 40, sha256: 64, sha512: 128 } as const
const READ_BYTES = 4 * 1024 * 1024

/** `sha256:9f86…` @throws UsageError */
export function parseDigest(text: string): PublishedDigest {
  const [algorithm = '', hex = ''] = text.toLowerCase().split(':')
  const length = Object.hasOwn(hexLength, algorithm) ? hexLength[algorithm as PublishedDigest['algorithm']] : 0
  if (hex.length !== length || length === 0 || !/^[0-9a-f]+$/.test(hex)) {
    throw new UsageError(`--os-hash takes ALGORITHM:HEX with md5, sha1, sha256 or sha512; not "${safeText(text)}"`)
  }
  return { algorithm: algorithm as PublishedDigest['algorithm'], hex }
}

/** Reads the file once. @throws ServiceError `corrupt` where it is not the file that was published */
export async function verifySource(path: string, expected: PublishedDigest, signal: AbortSignal): Promise<void> {
  const hash = createHash(expected.algorithm)
  try {
    for await (const bytes of createReadStream(path, { highWaterMark: READ_BYTES, signal })) hash.update(bytes as Buffer)
  } catch (error) {
    throw signal.aborted && !isServiceError(error) ? cancelled() : error
  }
  const got = hash.digest('hex')
  if (got === expected.hex) return
  const message = `the ${expected.algorithm} of ${path} is ${got}, the publisher says ${expected.hex}; nothing was added, download it again`
  throw new ServiceError('corrupt', message)
}
