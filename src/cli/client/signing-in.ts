import { isServiceError } from '../../base/errors.ts'

/** Does it once more with a new token where the service knows the old one no more, as tokens expire in the middle of long work. */
export const signingIn =
  (signIn: () => Promise<void>) =>
  async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      if (!isServiceError(error, 'unauthenticated')) throw error
      await signIn()
      return work()
    }
  }
