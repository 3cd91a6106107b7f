import { ServiceError } from '../../../base/errors.ts'
import { TiB } from '../../../base/units.ts'
import { COMPLETED, STILL, untilMigration } from './migration-state.ts'
import type { Run } from './run.ts'

/**
 * QEMU sends all pages while the guest runs, then what was changed meanwhile, and so on; when what is left will take no longer than
 * `DOWNTIME_MS` by what was taken so far, the processors stand still and the rest follows.
 */
const DOWNTIME_MS = 100
/** Then the processors stand still whatever is left, so the stream is at most that many times the memory, and once more. */
const MAX_PASSES = 5
const DOWNTIME_WITHOUT_LIMIT_MS = 2_000_000 // the most that QEMU takes
/** A guest that stands still for longer has lost its connections: it goes on here. */
const STILL_AT_MOST_MS = 60_000
const NO_BANDWIDTH_LIMIT = TiB // bytes a second: the pace of who takes it is what counts

/**
 * All of the memory and the devices' state, to where QEMU is told to send it. The processors stand still afterwards; where this fails,
 * `callOff` is for the caller.
 * @param uri as QEMU's `migrate` takes it
 * @param whileStill done while the processors stand still and QEMU has the disks, all that the guest wrote being in their files
 * @returns what that came to, and when the processors came to stand still, by `performance.now()`
 * @throws ServiceError `unavailable`, `cancelled`
 */
export async function sendMemory<T>(
  run: Run,
  uri: string,
  signal: AbortSignal,
  whileStill: () => Promise<T>,
): Promise<{ readonly result: T; readonly stillSince: number }> {
  let stillSince = performance.now()
  const stop = run.onEvent(({ name, data }) => {
    if (name === 'STOP') stillSince = performance.now()
    if (name !== 'MIGRATION_PASS' || Number(data.pass) !== MAX_PASSES) return
    run.execute('migrate-set-parameters', { 'downtime-limit': DOWNTIME_WITHOUT_LIMIT_MS }).catch(() => {}) // seen by how it goes on
  })
  const late = new AbortController()
  let timer: NodeJS.Timeout | undefined
  try {
    const capabilities = ['events', 'pause-before-switchover'].map((capability) => ({ capability, state: true }))
    await run.execute('migrate-set-capabilities', { capabilities })
    await run.execute('migrate-set-parameters', { 'max-bandwidth': NO_BANDWIDTH_LIMIT, 'downtime-limit': DOWNTIME_MS })
    await run.execute('migrate', { uri })
    await untilMigration(run, STILL, signal)
    timer = setTimeout(() => late.abort(tooSlow(run.id)), STILL_AT_MOST_MS)
    const result = await whileStill()
    await run.execute('migrate-continue', { state: STILL })
    await untilMigration(run, COMPLETED, AbortSignal.any([signal, late.signal]))
    return { result, stillSince }
  } finally {
    clearTimeout(timer)
    stop()
  }
}

const tooSlow = (id: string): ServiceError =>
  new ServiceError(
    'unavailable',
    `The machine ${id} changes its memory faster than it can be taken: it would stand still for more than ${STILL_AT_MOST_MS / 1000} s. ` +
      'Try again when it does less, or without its memory.',
    { id },
  )
