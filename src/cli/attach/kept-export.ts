import { setTimeout as wait } from 'node:timers/promises'
import { isServiceError, type ServiceError } from '../../base/errors.ts'
import type { NewExport } from '../client/imprint-client.ts'
import { signingIn } from '../client/signing-in.ts'
import type { Output } from '../output.ts'
import type { Session } from '../session.ts'

/** An export outlives a service that is away for so long, and a client that was killed. */
const LEASE_SECONDS = 7200
const RENEW_EVERY_MS = 600_000
const RENEW_AGAIN_MS = 15_000
/** A service that does not hear of the end ends it by itself. */
const END_WITHIN_MS = 5_000

/** An export that is kept for as long as it is needed. */
export interface KeptExport {
  readonly made: NewExport
  /** Settles when the export ended though it was needed: with the reason, or undefined after `end`. */
  readonly lost: Promise<ServiceError | undefined>
  /** Gets the session a new token where the service knows the old one no more. */
  signIn(): Promise<void>
  end(): Promise<void>
}

/**
 * @param session whose token may expire while the export is kept
 * @param signedIn a new session of the same user; closed here
 */
export async function keepExport(session: Session, imageId: string, signedIn: () => Promise<Session>): Promise<KeptExport> {
  const { imprint, http } = session
  const made = await imprint.createExport({ image: imageId, seconds: LEASE_SECONDS })
  const over = new AbortController()
  let underWay: Promise<void> | undefined
  const signIn = () => {
    underWay ??= renewToken().finally(() => {
      underWay = undefined
    })
    return underWay
  }
  const renewToken = async () => {
    const fresh = await signedIn()
    http.token = fresh.token
    fresh.close()
  }
  const asUser = signingIn(signIn)
  const keep = async (): Promise<ServiceError | undefined> => {
    for (let pauseMs = RENEW_EVERY_MS; !over.signal.aborted; ) {
      await wait(pauseMs, undefined, { signal: over.signal }).catch(() => undefined)
      if (over.signal.aborted) break
      try {
        await asUser(() => imprint.renewExport(made.id, LEASE_SECONDS))
        pauseMs = RENEW_EVERY_MS
      } catch (error) {
        if (isServiceError(error, 'not-found') || isServiceError(error, 'denied')) return error
        pauseMs = RENEW_AGAIN_MS // the service is away: reads wait for it as well
      }
    }
    return undefined
  }
  return {
    made,
    lost: keep(),
    signIn,
    async end() {
      over.abort()
      await asUser(() => imprint.endExport(made.id, AbortSignal.timeout(END_WITHIN_MS)))
    },
  }
}

/** An export that cannot be ended now ends by itself. */
export async function endQuietly(kept: Pick<KeptExport, 'end'>, out: Output): Promise<void> {
  await kept.end().catch((error: unknown) => {
    if (!isServiceError(error, 'not-found')) out.note('The service did not hear that this ended; its export ends by itself.')
  })
}
