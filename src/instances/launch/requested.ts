import { isServiceError, ServiceError } from '../../base/errors.ts'

/** Of user data, encoded: Nova's limit. */
const MAX_USER_DATA_CHARACTERS = 65_535

/** What a request names and there is none of makes the request wrong: Nova answers 400. */
export async function asRequested<T>(find: () => Promise<T>): Promise<T> {
  try {
    return await find()
  } catch (cause) {
    if (!isServiceError(cause) || !['not-found', 'conflict', 'unsupported'].includes(cause.code)) throw cause
    throw new ServiceError('invalid-request', cause.message, cause.details, { cause })
  }
}

/** @throws ServiceError `invalid-request` */
export function assertUserData(userData: string): void {
  if (userData.length > MAX_USER_DATA_CHARACTERS) {
    throw new ServiceError(
      'invalid-request',
      `User data too large. User data must be no larger than ${MAX_USER_DATA_CHARACTERS} bytes once base64 encoded. Your data is ${userData.length} bytes`,
    )
  }
  const base64 = userData.replace(/[\r\n]/g, '')
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(base64) || base64.length % 4 !== 0) {
    throw new ServiceError('invalid-request', 'User data needs to be valid base 64.')
  }
}
