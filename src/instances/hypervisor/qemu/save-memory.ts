import { failpoint } from '../../../base/failpoint.ts'
import { fileProblem, type MachineFolder } from './machine-folder.ts'
import { callOff, goOn } from './migration-state.ts'
import { type Door, openDoor } from './outgoing-door.ts'
import type { Run } from './run.ts'
import { sendMemory } from './send-memory.ts'

/** The memory of a machine as the stream that QEMU would send to another host. */
export interface Outgoing {
  readonly wasPaused: boolean
  readonly sink: (body: AsyncIterable<Uint8Array>) => Promise<void>
  readonly signal: AbortSignal
}

/**
 * Failed, the guest is told to stand as it did before; where QEMU did not hear that, `callOff` is for the caller to do again.
 * @param whileStill as for `sendMemory`
 */
export async function saveMemory<T>(
  run: Run,
  folder: MachineFolder,
  { wasPaused, sink, signal }: Outgoing,
  whileStill: () => Promise<T>,
): Promise<{ readonly result: T; readonly pausedMs: number }> {
  const door = await openDoor(folder, 'memory').catch((error) => {
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
  const sending = sent(run, door.uri, wasPaused, AbortSignal.any([halt.signal, signal]), whileStill)
  sending.then(() => whole.resolve(), fail)
  const storing = stored(sink, door, whole.promise)
  storing.catch(fail)
  const [saved] = await Promise.allSettled([sending, storing])
  door.close()
  if (cause !== undefined || saved.status === 'rejected') throw cause
  return saved.value
}

async function sent<T>(
  run: Run,
  uri: string,
  wasPaused: boolean,
  signal: AbortSignal,
  whileStill: () => Promise<T>,
): Promise<{ readonly result: T; readonly pausedMs: number }> {
  let wentOn: number | null = null
  const stop = run.onEvent(({ name }) => {
    if (name === 'RESUME') wentOn = performance.now()
  })
  try {
    const { result, stillSince } = await sendMemory(run, uri, signal, whileStill)
    failpoint('memory:sent')
    await goOn(run, wasPaused)
    return { result, pausedMs: wasPaused ? 0 : (wentOn ?? performance.now()) - stillSince }
  } catch (error) {
    await callOff(run, wasPaused).catch(() => {})
    throw error
  } finally {
    stop()
  }
}

async function stored(sink: Outgoing['sink'], { connection }: Door, whole: Promise<void>): Promise<void> {
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
