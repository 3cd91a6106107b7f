import { layerNode } from './disk-nodes.ts'
import { files } from './machine-files.ts'
import type { KeptDisk } from './machine-folder.ts'
import type { Run } from './run.ts'

/** A process that is to be filled takes what the source's QEMU sends: what is written to its disks, under their names, and its memory. */
export async function awaitSource(run: Run, disks: readonly KeptDisk[]): Promise<void> {
  await run.execute('nbd-server-start', { addr: { type: 'unix', data: { path: files.copies } } })
  for (const { slot, name, layers } of disks) {
    const top = layers.at(-1)
    if (top === undefined) continue // both sides write to its store
    const node = layerNode(slot, top)
    await run.execute('block-export-add', { type: 'nbd', id: `copy${slot}`, 'node-name': node, name, writable: true })
  }
  await run.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] })
  await run.execute('migrate-incoming', { uri: `unix:${files.incoming}` })
}
