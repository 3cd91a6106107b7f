import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import { type Device, deviceOf } from './devices.ts'
import { nodesOf } from './disk-nodes.ts'
import { deleteUnusedNodes, isInserted } from './live-layers.ts'
import type { KeptDisk } from './machine-folder.ts'
import { isRefusal } from './qmp.ts'
import type { Run } from './run.ts'

/** Disks that come to a running QEMU, and go. */

/** A guest that is still starting may have missed it; QEMU refuses while it waits for an answer, and that does no harm. */
const ASK_AGAIN_MS = 5_000
const LOOK_AGAIN_MS = 500

/** @throws ServiceError `unavailable`; where QEMU refused, nothing of it is there */
export async function plugIn(run: Run, disk: KeptDisk, device: Device): Promise<void> {
  await deleteUnusedNodes(run, disk) // of an attempt that came to nothing
  try {
    for (const node of nodesOf(disk)) await run.execute('blockdev-add', node)
    await run.execute('device_add', device)
  } catch (error) {
    if (isRefusal(error)) await deleteUnusedNodes(run, disk)
    throw error
  }
}

/**
 * Asks the guest to let go of a disk, as the button beside its slot would, and takes it away then.
 * @returns whether it is gone; it is also where the machine went off
 * @throws ServiceError `unavailable`
 */
export async function unplug(run: Run, disk: KeptDisk, graceMs: number): Promise<boolean> {
  const gone = Promise.withResolvers<void>()
  const stop = run.onEvent(({ name, data }) => {
    if (name === 'DEVICE_DELETED' && data.device === deviceOf(disk)) gone.resolve()
  })
  let isGone = false
  const whenGone = Promise.race([gone.promise, run.ended]).then(() => {
    isGone = true
  })
  try {
    const deadline = performance.now() + graceMs
    let askAt = 0
    while (!isGone && (await isInserted(run, disk))) {
      const now = performance.now()
      if (now >= deadline && askAt > 0) return false
      if (now >= askAt) {
        await run.execute('device_del', { id: deviceOf(disk) }).catch(leaveRefusal)
        askAt = now + ASK_AGAIN_MS
      }
      await Promise.race([whenGone, pause(Math.max(1, Math.min(LOOK_AGAIN_MS, deadline - now)), undefined, { ref: false })])
    }
    await deleteUnusedNodes(run, disk)
    return true
  } catch (error) {
    if (isGone || (await run.endsSoon())) return true
    throw error
  } finally {
    stop()
  }
}

/** It is asked already, or the device has just gone: that is seen by looking. */
function leaveRefusal(error: unknown): void {
  if (!isRefusal(error)) throw error
}

export const notLetGo = (id: string, { name }: KeptDisk): ServiceError => {
  const message = `The guest of the machine ${id} does not let go of its disk "${name}": unmount it there, or stop the machine.`
  return new ServiceError('conflict', message, { id, disk: name })
}
