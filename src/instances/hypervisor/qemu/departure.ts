import type { Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { Migrated, MigrationTarget } from '../machine-migration.ts'
import { mirror } from './disk-mirror.ts'
import { runsOf } from './file-runs.ts'
import type { KeptRecord } from './kept-record.ts'
import type { MachineDisks } from './machine-disks.ts'
import { answer, answered, asked, isAnswer, joined, type Offer, say, type Word } from './migration-link.ts'
import { openDoor } from './outgoing-door.ts'
import { cancelled, type Run } from './run.ts'
import { sendMemory } from './send-memory.ts'

/** What a departure needs of the machine that departs. */
export interface Departing {
  readonly run: Run
  readonly kept: KeptRecord
  readonly disks: MachineDisks
  readonly offer: Omit<Offer, 'layers'>
  readonly target: MigrationTarget
  /** What its guest wrote to its console, as far as it goes along. */
  readonly console: () => Promise<Uint8Array>
  /** Heeded until the machine is given away. */
  readonly signal: AbortSignal
  /** Heeded afterwards, too. */
  readonly closing: AbortSignal
}

/** However large a layer is: the signal and the connection bound it. */
const LAYER_WITHIN_MS = 2 ** 31 - 1

/**
 * Settles when the guest goes on at the target. Failed before the record says `givenTo`, or with that taken back, the target forgets what it
 * has, and `callOff` and `clearMirrors` are for the caller. Where the record still says it, only the target knows where the guest is.
 */
export async function depart(departing: Departing): Promise<Migrated> {
  const { kept, disks, offer, target, run } = departing
  const sealed = await disks.seal()
  const layers = Object.fromEntries(kept.now.spec.disks.map((disk) => [disk.name, disk.layers]))
  const lost = new AbortController()
  const signal = AbortSignal.any([departing.signal, lost.signal])
  const lease = await say(target, { say: 'prepare', offer: { ...offer, layers } })
  try {
    await answer(lease, signal)
    lease.once('end', () => lease.destroy())
    lease.once('close', () => lost.abort())
    lease.resume()
    failpoint('migration:prepared')
    let layerBytes = 0
    for (const [disk, numbers] of Object.entries(sealed)) {
      for (const layer of numbers) layerBytes += await sendLayer(disks, target, disk, layer, signal)
    }
    await asked(target, { say: 'wait' }, signal)
    failpoint('migration:awaited')
    const { stillSince, memoryBytes } = await sendRest(departing, signal)
    await kept.save((record) => ({ ...record, transit: { wasPaused: offer.wasPaused, givenTo: target } }))
    failpoint('migration:given')
    await lastWord(kept, target, departing.closing)
    return { downtimeMs: offer.wasPaused ? 0 : performance.now() - stillSince, layerBytes, memoryBytes }
  } catch (error) {
    if (departing.signal.aborted) throw cancelled(run.id)
    if (!lost.signal.aborted || isAnswer(error)) throw error
    const message = `The hypervisor where the machine ${run.id} was to go has hung up; see whether it runs.`
    throw new ServiceError('unavailable', message, { id: run.id }, { cause: error })
  } finally {
    lease.destroy()
  }
}

/**
 * Settles when the target has the guest go on.
 * @throws ServiceError `unavailable` where it does not, and never will; the record says so then. `cancelled`: nobody knows yet
 */
export async function lastWord(kept: KeptRecord, target: MigrationTarget, closing: AbortSignal): Promise<void> {
  const { isHere } = await answered(target, { say: 'commit' }, closing)
  failpoint('migration:answered')
  if (isHere === true) return
  await kept.save((record) => ({ ...record, transit: { wasPaused: record.transit?.wasPaused ?? false } }))
  const { id } = kept.now.spec
  throw new ServiceError('unavailable', `The other hypervisor has lost the machine ${id} on its way; it goes on here.`, { id })
}

/** What the guest goes on writing, and its memory, to the end of both. */
async function sendRest(
  { run, kept, target, console }: Departing,
  signal: AbortSignal,
): Promise<{ readonly stillSince: number; readonly memoryBytes: number }> {
  const ways: { close(): void }[] = []
  const open = async (name: string, word: Word) => {
    const door = await openDoor(kept.folder, name)
    ways.push(door)
    const there = await say(target, word)
    ways.push({ close: () => there.destroy() })
    const here = door.connection.then((socket) => {
      joined(socket, there)
      return socket
    })
    return { ...door, here }
  }
  try {
    const mirrored = []
    for (const disk of kept.now.spec.disks.filter(({ layers }) => layers.length > 0)) {
      const { path } = await open(`disk${disk.slot}`, { say: 'pipe', to: { disk: disk.name } })
      mirrored.push({ disk, socketPath: path })
    }
    const mirrors = await mirror(run, mirrored, signal)
    await mirrors.ready
    failpoint('migration:mirrored')
    const { uri, here } = await open('memory', { say: 'pipe', to: 'memory' })
    const { stillSince } = await sendMemory(run, uri, signal, async () => {
      failpoint('migration:still')
      await mirrors.finish()
    })
    failpoint('migration:sent')
    const text = Buffer.from(await console()).toString('base64')
    await asked(target, { say: 'filled', console: text }, signal) // what is on the way must not be cut off
    return { stillSince, memoryBytes: (await here).bytesRead }
  } finally {
    for (const way of ways) way.close()
  }
}

async function sendLayer(
  disks: MachineDisks,
  target: MigrationTarget,
  disk: string,
  layer: number,
  signal: AbortSignal,
): Promise<number> {
  const file = await disks.openLayerFile(disk, layer)
  let socket: Socket | null = null
  try {
    const way = await say(target, { say: 'layer', disk, layer })
    socket = way
    const reply = answer(way, signal, LAYER_WITHIN_MS).catch((error) => {
      way.destroy() // nobody reads the rest
      throw error
    })
    const [said, sent] = await Promise.allSettled([reply, pipeline(runsOf(file), way, { signal })])
    if (said.status === 'rejected') throw sent.status === 'rejected' && !isAnswer(said.reason) ? sent.reason : said.reason
    return socket.bytesWritten
  } finally {
    socket?.destroy()
    await file.close()
  }
}
