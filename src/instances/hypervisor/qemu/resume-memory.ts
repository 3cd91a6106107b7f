import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { MemoryState } from '../machine-memory.ts'
import { files } from './machine-files.ts'
import type { MachineFolder } from './machine-folder.ts'
import { COMPLETED, untilMigration } from './migration-state.ts'
import type { Run } from './run.ts'

/**
 * Fills a machine that was started to be filled from the stream of another one; its processors stand still afterwards.
 * @throws what the stream throws; ServiceError `unavailable` where QEMU does not take it: its process ends then; `cancelled`
 */
export async function resumeMemory(
  run: Run,
  folder: MachineFolder,
  open: MemoryState['open'],
  signal: AbortSignal,
): Promise<void> {
  await run.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] })
  await run.execute('migrate-incoming', { uri: `unix:${files.incoming}` })
  const halt = new AbortController()
  const either = AbortSignal.any([halt.signal, signal])
  const arrival = untilMigration(run, COMPLETED, either).finally(() => halt.abort())
  const feeding = fed(folder, open, either)
  try {
    await Promise.all([arrival, feeding])
  } finally {
    halt.abort()
    await Promise.allSettled([arrival, feeding])
  }
}

/** Where QEMU no longer takes it, QEMU's state says why. */
async function fed(folder: MachineFolder, open: MemoryState['open'], signal: AbortSignal): Promise<void> {
  let problem: unknown
  const body = async function* (): AsyncIterable<Uint8Array> {
    try {
      yield* open(signal)
    } catch (error) {
      problem = error
      throw error
    }
  }
  await pipeline(Readable.from(body()), connect({ path: folder.inRun(files.incoming) }), { signal }).catch(() => {})
  if (problem !== undefined && !signal.aborted) throw problem
}
