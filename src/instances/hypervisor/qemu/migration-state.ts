import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import { isRefusal } from './qmp.ts'
import { cancelled, type Run, STATUS } from './run.ts'

/** QEMU's migration as it is driven and looked at from outside. Source: QEMU docs/devel/migration.rst and qapi/migration.json of 7.2. */

/** The processors stand still, the disks are still QEMU's, and it waits to be told to go on. */
export const STILL = 'pre-switchover'
export const COMPLETED = 'completed'
const UNDER_WAY: ReadonlySet<string> = new Set([
  'setup',
  'active',
  STILL,
  'device',
  'cancelling',
  'wait-unplug',
  'postcopy-active',
])
const FAILED: ReadonlySet<string> = new Set(['failed', 'cancelled'])
/** In these a guest stands still for a migration, and for nothing else. */
const STANDS_STILL: ReadonlySet<string> = new Set(['finish-migrate', 'postmigrate'])
/** QEMU says that it completed a moment before it can go on. */
const GO_ON_AGAIN_MS = 5
const GO_ON_WITHIN_MS = 30_000

/**
 * Settles when the migration is in the wanted state.
 * @throws ServiceError `unavailable` where it ended otherwise, with QEMU's reason; `cancelled`, or the signal's own reason where that is a
 *   ServiceError
 */
export async function untilMigration(run: Run, wanted: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const news = nextNews(run)
    try {
      const { status = 'none', 'error-desc': why } = await run.execute('query-migrate')
      if (status === wanted) return
      if (FAILED.has(status) || (status === COMPLETED && wanted !== COMPLETED)) {
        throw new ServiceError('unavailable', `QEMU gave up the memory of the machine ${run.id}: ${why ?? status}; try again.`, {
          id: run.id,
        })
      }
      if (!signal.aborted) await Promise.race([news.heard, run.ended, news.orAborted(signal)])
      if (signal.aborted) throw signal.reason instanceof ServiceError ? signal.reason : cancelled(run.id)
    } finally {
      news.end()
    }
  }
}

/** Whatever is under way is called off, and the guest stands as it did before. Again is harmless. @throws ServiceError `unavailable` */
export async function callOff(run: Run, wasPaused: boolean): Promise<void> {
  const { status = 'none' } = await run.execute('query-migrate')
  if (UNDER_WAY.has(status)) {
    await run.execute('migrate_cancel')
    await untilOver(run)
  }
  await goOn(run, wasPaused)
}

/**
 * From where a migration left it. QEMU takes no second migration of a guest that stands still after a first one, and holds none of its
 * disks; so one that was paused goes on and is stopped in one breath.
 */
export async function goOn(run: Run, wasPaused: boolean): Promise<void> {
  const deadline = performance.now() + GO_ON_WITHIN_MS
  for (;;) {
    const { status } = await run.execute('query-status')
    if (!STANDS_STILL.has(status)) return // it goes on, or went off
    const went = run.execute('cont')
    const stopped = wasPaused ? run.execute('stop') : null
    try {
      await Promise.all([went, stopped])
      return
    } catch (error) {
      if (!isRefusal(error)) throw error
      if (performance.now() >= deadline) {
        const message = `QEMU does not let the machine ${run.id} go on; reboot it, or stop and start it.`
        throw new ServiceError('unavailable', message, { id: run.id }, { cause: error })
      }
    }
    await pause(GO_ON_AGAIN_MS)
  }
}

async function untilOver(run: Run): Promise<void> {
  for (;;) {
    const news = nextNews(run)
    try {
      const { status = 'none' } = await run.execute('query-migrate')
      if (!UNDER_WAY.has(status)) return
      await Promise.race([news.heard, run.ended])
    } finally {
      news.end()
    }
  }
}

/** To be listened for before one looks, so that nothing falls between. */
function nextNews(run: Run) {
  const heard = Promise.withResolvers<void>()
  const stop = run.onEvent(({ name }) => {
    if (name === 'MIGRATION' || name === STATUS) heard.resolve()
  })
  const over = new AbortController()
  return {
    heard: heard.promise,
    orAborted: (signal: AbortSignal) =>
      new Promise<void>((aborted) => signal.addEventListener('abort', () => aborted(), { once: true, signal: over.signal })),
    end: () => {
      stop()
      over.abort()
    },
  }
}
