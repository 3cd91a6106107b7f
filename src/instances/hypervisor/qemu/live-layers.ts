import { ServiceError } from '../../../base/errors.ts'
import type { DiskAddress } from '../hypervisor.ts'
import { baseNode, baseNodes, isOfSlot, layerNode, layerOf } from './disk-nodes.ts'
import type { KeptDisk } from './machine-folder.ts'
import { isRefusal, type QmpCommands } from './qmp.ts'
import type { Run } from './run.ts'

/** Layers of disks as a running QEMU has them. */

/**
 * The layers of the record down to the one that each disk is written to. The record is ahead of QEMU where a service was killed as it
 * sealed, or lost sight of QEMU.
 */
export async function layersInUse(run: Run, disks: readonly KeptDisk[]): Promise<readonly KeptDisk[]> {
  const devices = await run.execute('query-block')
  return disks.map((disk) => {
    const node = insertedIn(devices, disk)?.['node-name']
    const top = disk.layers.findIndex((layer) => layerNode(disk.slot, layer) === node)
    return top < 0 ? disk : { ...disk, layers: disk.layers.slice(0, top + 1) }
  })
}

/** How many nodes lie under the layer that the guest writes to. @throws ServiceError `unavailable` */
export async function depthBelow(run: Run, disk: KeptDisk): Promise<number> {
  const depth = insertedIn(await run.execute('query-block'), disk)?.backing_file_depth
  if (depth !== undefined) return depth
  throw new ServiceError('unavailable', `QEMU has no disk "${disk.name}" in the machine ${run.id}; stop and start it.`, {
    id: run.id,
  })
}

/** Whether the guest has the disk. @throws ServiceError `unavailable` */
export async function isInserted(run: Run, disk: KeptDisk): Promise<boolean> {
  return insertedIn(await run.execute('query-block'), disk) !== undefined
}

const insertedIn = (devices: QmpCommands['query-block'][1], { slot }: KeptDisk) =>
  devices.find(({ qdev }) => qdev === `disk${slot}` || qdev?.includes(`/disk${slot}/`))?.inserted // virtio's is inside it

/** The last layer of each disk comes on top of the one before it: at one moment for all, or for none. */
export async function putOnTop(run: Run, disks: readonly KeptDisk[]): Promise<void> {
  if (disks.length === 0) return
  const actions = disks.map(({ slot, layers }) => {
    const [sealed, top] = layers.slice(-2) as [number, number]
    return { type: 'blockdev-snapshot', data: { node: layerNode(slot, sealed), overlay: layerNode(slot, top) } } as const
  })
  try {
    for (const disk of disks) {
      const top = disk.layers.at(-1)!
      await deleteNode(run, layerNode(disk.slot, top)) // of an attempt that came to nothing
      await run.execute('blockdev-add', layerOf(disk, top, null))
    }
    await run.execute('transaction', { actions })
  } catch (error) {
    for (const { data } of actions) await deleteNode(run, data.overlay)
    throw error
  }
}

/**
 * The lowest of the disk's layers comes to lie on another base of the same content; what was under it before is left where it is,
 * unused. A guest that reads meanwhile waits for some milliseconds.
 */
export async function putOnBase(run: Run, disk: KeptDisk, base: DiskAddress): Promise<void> {
  const { slot, layers } = disk
  const taken = (await nodeNames(run)).filter((name) => isOfSlot(name, slot) && !name.startsWith('disk')).map(lastNumber)
  const attempt = Math.max(-1, ...taken) + 1
  const nodes = baseNodes(slot, attempt, base)
  try {
    for (const node of nodes) await run.execute('blockdev-add', node)
    await run.execute('blockdev-reopen', { options: [layerOf(disk, layers[0]!, baseNode(slot, attempt))] })
  } catch (error) {
    if (isRefusal(error)) for (const node of nodes.toReversed()) await deleteNode(run, node['node-name'])
    throw error
  }
}

/** Nodes of a disk on which nothing lies: they have been replaced. QEMU itself keeps those that are in use. */
export async function deleteUnusedNodes(run: Run, disk: KeptDisk): Promise<void> {
  const names = (await nodeNames(run)).filter((name) => isOfSlot(name, disk.slot))
  const stores = names.filter((name) => name.startsWith('store'))
  const layers = names.filter((name) => name.startsWith('disk')).sort((a, b) => lastNumber(b) - lastNumber(a))
  const bases = names.filter((name) => name.startsWith('base'))
  const exports = names.filter((name) => name.startsWith('nbd'))
  for (const name of [...stores, ...layers, ...bases, ...exports]) await deleteNode(run, name) // those above before those beneath
}

const nodeNames = async (run: Run): Promise<readonly string[]> =>
  (await run.execute('query-named-block-nodes', { flat: true })).flatMap((node) => node['node-name'] ?? [])

const lastNumber = (name: string): number => Number(name.slice(name.lastIndexOf('-') + 1))

/** One that is in use stays, and so does what nobody can be asked about: it costs nothing but its place. */
const deleteNode = (run: Run, name: string): Promise<unknown> =>
  run.execute('blockdev-del', { 'node-name': name }).catch(() => {})
