import { layerOf } from './command-line.ts'
import { layerNode } from './devices.ts'
import type { KeptDisk } from './machine-folder.ts'
import type { Run } from './run.ts'

/** Layers of disks as a running QEMU has them. */

/**
 * The layers of the record down to the one that each disk is written to. The record is ahead of QEMU where a service was killed as it
 * sealed, or lost sight of QEMU.
 */
export async function layersInUse(run: Run, disks: readonly KeptDisk[]): Promise<readonly KeptDisk[]> {
  const devices = await run.execute('query-block')
  return disks.map((disk, index) => {
    const device = devices.find(({ qdev }) => qdev === `disk${index}` || qdev?.includes(`/disk${index}/`)) // virtio's is inside it
    const top = disk.layers.findIndex((layer) => layerNode(index, layer) === device?.inserted?.['node-name'])
    return top < 0 ? disk : { ...disk, layers: disk.layers.slice(0, top + 1) }
  })
}

/** The last layer of each disk comes on top of the one before it: at one moment for all, or for none. */
export async function putOnTop(run: Run, disks: readonly KeptDisk[]): Promise<void> {
  const actions = disks.map(({ layers }, index) => {
    const [sealed, top] = layers.slice(-2) as [number, number]
    return { type: 'blockdev-snapshot', data: { node: layerNode(index, sealed), overlay: layerNode(index, top) } } as const
  })
  try {
    for (const [index, { name, layers }] of disks.entries()) {
      const top = layers.at(-1)!
      await run.execute('blockdev-del', { 'node-name': layerNode(index, top) }).catch(() => {}) // of an attempt that came to nothing
      await run.execute('blockdev-add', layerOf(index, name, top, null, false))
    }
    await run.execute('transaction', { actions })
  } catch (error) {
    for (const { data } of actions) await run.execute('blockdev-del', { 'node-name': data.overlay }).catch(() => {}) // one in use stays
    throw error
  }
}
