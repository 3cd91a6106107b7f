import type { DiskAddress } from '../hypervisor.ts'
import { files } from './machine-files.ts'
import type { KeptDisk, KeptSpec } from './machine-folder.ts'

/**
 * The nodes of QEMU's block layer that a machine's disks are made of. Every driver is named: nothing is ever probed. A disk's nodes are
 * named by its slot, which it keeps while others come and go.
 */
export type BlockNode = Readonly<Record<string, unknown>> & { readonly 'node-name': string; readonly driver: string }

/** How long a guest's read waits for the service to come back before it fails: an update or a reboot of it must pass unnoticed. */
const RECONNECT_SECONDS = 24 * 3600
/** At the start it must be there, or nearly. */
const OPEN_WITHIN_SECONDS = 10

/** The node of a layer; QEMU takes 31 characters. */
export const layerNode = (slot: number, layer: number): string => `disk${slot}-${layer}`

/** @param attempt a disk that gets another base has both for a while */
export const baseNode = (slot: number, attempt: number): string => `base${slot}-${attempt}`

/** What the guest's device is given. */
export const topNode = ({ slot, layers, store }: KeptDisk): string => (store ? storeNode(slot) : layerNode(slot, layers.at(-1)!))

const storeNode = (slot: number): string => `store${slot}-0`

/** The nodes of all disks and of the seed, each after those that it lies on. */
export function diskNodes({ disks, hasSeed }: Pick<KeptSpec, 'disks' | 'hasSeed'>): readonly BlockNode[] {
  const nodes = disks.flatMap(nodesOf)
  if (hasSeed)
    nodes.push({ driver: 'raw', 'node-name': 'seed', 'read-only': true, file: { driver: 'file', filename: files.seed } })
  return nodes
}

/** The last one is what the guest's device is given. */
export function nodesOf(disk: KeptDisk): readonly BlockNode[] {
  const { slot, base, layers, store, bytes } = disk
  if (store) {
    const nbd = exportNode(slot, 0, store, { isWritten: true })
    // no more than the guest was promised, whatever the export has by now
    return [nbd, { driver: 'raw', 'node-name': storeNode(slot), file: nbd['node-name'], size: bytes, discard: 'unmap' }]
  }
  const nodes = base ? [...baseNodes(slot, 0, base)] : []
  let below = base ? baseNode(slot, 0) : null
  for (const layer of layers) {
    nodes.push(layerOf(disk, layer, below))
    below = layerNode(slot, layer)
  }
  return nodes
}

/** What speaks NBD, and the disk above it. */
export const baseNodes = (slot: number, attempt: number, base: DiskAddress): readonly BlockNode[] => {
  const nbd = exportNode(slot, attempt, base, { isWritten: false })
  return [nbd, { driver: 'raw', 'node-name': baseNode(slot, attempt), 'read-only': true, file: nbd['node-name'] }]
}

const exportNode = (
  slot: number,
  attempt: number,
  { socketPath, exportName }: DiskAddress,
  { isWritten }: { readonly isWritten: boolean },
): BlockNode => ({
  driver: 'nbd',
  'node-name': `nbd${slot}-${attempt}`,
  'read-only': !isWritten,
  discard: 'unmap',
  server: { type: 'unix', path: socketPath },
  export: exportName,
  'reconnect-delay': RECONNECT_SECONDS,
  'open-timeout': OPEN_WITHIN_SECONDS,
})

/** @param below the node under it; null: none, or to be put there by `blockdev-snapshot` */
export const layerOf = ({ slot, name, layers }: KeptDisk, layer: number, below: string | null): BlockNode => ({
  driver: 'qcow2',
  'node-name': layerNode(slot, layer),
  backing: below,
  'read-only': layer !== layers.at(-1),
  discard: 'unmap',
  'detect-zeroes': 'unmap',
  file: { driver: 'file', filename: files.disk(name, layer), discard: 'unmap' },
})

/** Whether a node is one of this disk's, whatever gave it its name. */
export const isOfSlot = (name: string, slot: number): boolean => new RegExp(`^(disk|base|nbd|store)${slot}-\\d+$`).test(name)
