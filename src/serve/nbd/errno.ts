import { type ErrorCode, isServiceError } from '../../base/errors.ts'
import { ERRNO, type Errno } from './protocol.ts'

/** What is not here is EIO: the client can do nothing about it. */
const errnoOfCode: Partial<Record<ErrorCode, Errno>> = {
  'invalid-request': ERRNO.EINVAL,
  'range-not-satisfiable': ERRNO.EINVAL,
  denied: ERRNO.EPERM,
  'no-space': ERRNO.ENOSPC,
  'over-quota': ERRNO.ENOSPC,
  'too-large': ERRNO.ENOSPC,
  unsupported: ERRNO.ENOTSUP,
  gone: ERRNO.ESHUTDOWN,
}
/** "It also SHOULD map the EDQUOT and EFBIG errors to ENOSPC." */
const errnoOfSystem: Record<string, Errno> = {
  ENOSPC: ERRNO.ENOSPC,
  EDQUOT: ERRNO.ENOSPC,
  EFBIG: ERRNO.ENOSPC,
  EROFS: ERRNO.EPERM,
  EACCES: ERRNO.EPERM,
  EPERM: ERRNO.EPERM,
}

/** The only place where an error meets a number of the protocol. */
export function errnoOf(error: unknown): Errno {
  if (isServiceError(error)) return errnoOfCode[error.code] ?? ERRNO.EIO
  const { code } = (error ?? {}) as { code?: unknown }
  return (typeof code === 'string' ? errnoOfSystem[code] : undefined) ?? ERRNO.EIO
}

/** Sentences of ours for people at the client: an error's own message may name what is not theirs to know. */
export const sentenceOf: Readonly<Record<Errno, string>> = {
  [ERRNO.EPERM]: 'this export is read-only or does not allow that',
  [ERRNO.EIO]: 'the disk could not be read or written here; the server log says why',
  [ERRNO.EINVAL]: 'the request is malformed, outside the disk, or asks for what was not offered',
  [ERRNO.ENOSPC]: 'there is no room for that: it ends beyond the disk, or the store or the quota is full',
  [ERRNO.EOVERFLOW]: 'too long for one piece; ask for less at once',
  [ERRNO.ENOTSUP]: 'not possible, or not fast, on this export',
  [ERRNO.ESHUTDOWN]: 'the server is closing; connect again later',
}
