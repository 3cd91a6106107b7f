import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import { cancelled, type Run } from './run.ts'

/** The buttons on the front of a machine. */

/** A guest that is still starting does not hear the power button yet. */
const PRESS_AGAIN_MS = 10_000
const RESET_WITHIN_MS = 30_000

/** Presses the power button until `off` settles, or `graceMs` are over. @throws ServiceError `cancelled` */
export async function pressPower(run: Run, graceMs: number, off: Promise<void>, closing: AbortSignal): Promise<void> {
  const over = new AbortController()
  const signal = AbortSignal.any([over.signal, closing])
  const deadline = performance.now() + graceMs
  let isOff = false
  const whenOff = off.then(() => {
    isOff = true
  })
  try {
    for (let left = graceMs; left > 0 && !isOff && !signal.aborted; left = deadline - performance.now()) {
      await run.execute('system_powerdown').catch(() => {}) // it may be going off just now
      await Promise.race([whenOff, pause(Math.min(left, PRESS_AGAIN_MS), undefined, { signal }).catch(() => {})])
    }
  } finally {
    over.abort()
  }
  if (closing.aborted) throw cancelled(run.id)
}

/** Settles when the machine was reset, or its process is gone; it stands still then if it did before. @throws ServiceError `unavailable` */
export async function pressReset(run: Run): Promise<void> {
  const done = Promise.withResolvers<void>()
  const stop = run.onEvent(({ name }) => {
    if (name === 'RESET') done.resolve()
  })
  const late = new AbortController()
  try {
    await run.execute('system_reset')
    const inTime = await Promise.race([
      done.promise.then(() => true),
      run.ended.then(() => true),
      pause(RESET_WITHIN_MS, false, { signal: late.signal }),
    ])
    if (!inTime) throw new ServiceError('unavailable', `QEMU does not reset the machine ${run.id}; stop it.`, { id: run.id })
  } finally {
    stop()
    late.abort()
  }
}
