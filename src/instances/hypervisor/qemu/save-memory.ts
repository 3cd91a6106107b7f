import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import { TiB } from '../../../base/units.ts'
import { fileProblem, type MachineFolder } from './machine-folder.ts'
import { COMPLETED, callOff, goOn, STILL, untilMigration } from './migration-state.ts'
import type { Run } from './run.ts'

/**
 * The memory of a machine as the stream that QEMU would send to another host. It sends all pages while the guest runs, then what was
 * changed meanwhile, and so on; when what is left will take no longer than `DOWNTIME_MS` by what the sink took so far, the processors
 * stand still and the rest follows.
 */
const DOWNTIME_MS = 100
/** Then the processors stand still whatever is left, so the stream is at most that many times the memory, and once more. */
const MAX_PASSES = 5
const DOWNTIME_WITHOUT_LIMIT_MS = 2_000_000 // the most that QEMU takes
/** A guest that stands still for longer has lost its connections: it goes on, and its memory is not saved. */
const STILL_AT_MOST_MS = 60_000
const NO_BANDWIDTH_LIMIT = TiB // bytes a second: the sink's pace is what counts

export interface Outgoing {
  readonly wasPaused: boolean
  readonly sink: (body: AsyncIterable<Uint8Array>) => Promise<void>
  readonly signal: AbortSignal
}

/**
 * Failed, the guest is told to stand as it did before; where QEMU did not hear that, `callOff` is for the caller to do again.
 * @param whileStill done while the processors stand still, all that the guest wrote being in the files of its disks
 */
export async function saveMemory<T>(
  run: Run,
  folder: MachineFolder,
  { wasPaused, sink, signal }: Outgoing,
  whileStill: () => Promise<T>,
): Promise<{ readonly result: T; readonly pausedMs: number }> {
  const door = await openDoor(folder).catch((error) => {
    throw fileProblem(error, run.id)
  })
  const halt = new AbortController()
  const whole = Promise.withResolvers<void>()
  whole.promise.catch(() => {}) // the sink hears of it, if it still listens
  let cause: unknown
  /** What fails first ends the others, which fail for that reason. */
  const fail = (error: unknown) => {
    cause ??= error
    whole.reject(error)
    halt.abort()
    door.close()
  }
  const sending = sent(run, folder, { wasPaused, signal: AbortSignal.any([halt.signal, signal]) }, whileStill)
  sending.then(() => whole.resolve(), fail)
  const storing = stored(sink, door.connection, whole.promise)
  storing.catch(fail)
  const [saved] = await Promise.allSettled([sending, storing])
  door.close()
  await folder.sweepOutgoing()
  if (cause !== undefined || saved.status === 'rejected') throw cause
  return saved.value
}

async function sent<T>(
  run: Run,
  folder: MachineFolder,
  { wasPaused, signal }: Omit<Outgoing, 'sink'>,
  whileStill: () => Promise<T>,
): Promise<{ readonly result: T; readonly pausedMs: number }> {
  const clock = stillClock(run)
  const stopAfterPasses = run.onEvent(({ name, data }) => {
    if (name !== 'MIGRATION_PASS' || Number(data.pass) !== MAX_PASSES) return
    run.execute('migrate-set-parameters', { 'downtime-limit': DOWNTIME_WITHOUT_LIMIT_MS }).catch(() => {}) // seen by how it goes on
  })
  const late = new AbortController()
  let timer: NodeJS.Timeout | undefined
  try {
    await begin(run, folder)
    await untilMigration(run, STILL, signal)
    timer = setTimeout(() => late.abort(tooSlow(run.id)), STILL_AT_MOST_MS)
    failpoint('memory:still')
    const result = await whileStill()
    failpoint('memory:sealed')
    await run.execute('migrate-continue', { state: STILL })
    await untilMigration(run, COMPLETED, AbortSignal.any([signal, late.signal]))
    failpoint('memory:sent')
    await goOn(run, wasPaused)
    return { result, pausedMs: wasPaused ? 0 : clock.ms() }
  } catch (error) {
    await callOff(run, wasPaused).catch(() => {})
    throw error
  } finally {
    clearTimeout(timer)
    stopAfterPasses()
    clock.end()
  }
}

async function begin(run: Run, folder: MachineFolder): Promise<void> {
  const capabilities = ['events', 'pause-before-switchover'].map((capability) => ({ capability, state: true }))
  await run.execute('migrate-set-capabilities', { capabilities })
  await run.execute('migrate-set-parameters', { 'max-bandwidth': NO_BANDWIDTH_LIMIT, 'downtime-limit': DOWNTIME_MS })
  await run.execute('migrate', { uri: `unix:${folder.outgoing.name}` })
}

const tooSlow = (id: string): ServiceError =>
  new ServiceError(
    'unavailable',
    `The machine ${id} changes its memory faster than it can be stored: it would stand still for more than ${STILL_AT_MOST_MS / 1000} s. ` +
      'Try again when it does less, or without its memory.',
    { id },
  )

async function stored(sink: Outgoing['sink'], connection: Promise<Socket>, whole: Promise<void>): Promise<void> {
  let isWhole = false
  const body = async function* (): AsyncIterable<Uint8Array> {
    const socket = await Promise.race([connection, whole.then(() => connection)])
    try {
      for await (const bytes of socket) yield bytes
    } catch {} // why it broke is known to who drives QEMU
    await whole // QEMU ends its stream when it gives up, too
    isWhole = true
  }
  await sink(body())
  if (!isWhole) throw new Error('the sink of a memory settled before it had read all of it')
}

interface Door {
  readonly connection: Promise<Socket>
  readonly close: () => void
}

/** Where QEMU brings the stream: not in its own folder, where it could put something else in its place. */
async function openDoor(folder: MachineFolder): Promise<Door> {
  await folder.sweepOutgoing()
  const connection = Promise.withResolvers<Socket>()
  let first: Socket | null = null
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    if (first) {
      socket.destroy()
      return
    }
    first = socket
    connection.resolve(socket)
  })
  server.listen(folder.outgoing.path)
  await once(server, 'listening')
  await folder.lend(folder.outgoing.path)
  return {
    connection: connection.promise,
    close: () => {
      server.close()
      first?.destroy()
    },
  }
}

/** For how long the processors stood still. */
function stillClock(run: Run) {
  let from = 0
  let to = 0
  const end = run.onEvent(({ name }) => {
    if (name === 'STOP') from = performance.now()
    else if (name === 'RESUME') to = performance.now()
  })
  return { ms: () => Math.max(0, (to || performance.now()) - (from || performance.now())), end }
}
