/**
 * A process to be killed: `node kill-child.suite.ts FOLDER ID LEASE`. Makes a snapshot with parts of what is lent in the stores in FOLDER;
 * with `give-up` for a lease, it makes the parts and gives up.
 */
import { memorySource } from '../../disk/block/memory-source.ts'
import { noise } from '../../store/chunks/random-files.suite.ts'
import { someone } from '../image-world.suite.ts'
import { createDialer } from '../import/dialer.ts'
import { importStores } from '../import/import-service.suite.ts'
import { noProtections } from '../protections/protections.ts'
import { openImages } from '../service.ts'
import type { NewPart } from './add-part.ts'
import { ImageSnapshots, type SnapshotContents, type SnapshotDraft } from './snapshots.ts'

export const DISK_BYTES = 40 * 65_536
export const base = noise(DISK_BYTES - 1000, 1)
const changes = noise(100_000, 2)
const CHANGED_AT = 300_000
export const alice = someone('alice')

/** What the snapshot must hold. */
export const expectedDisk = (): Buffer => {
  const disk = Buffer.alloc(DISK_BYTES)
  disk.set(base)
  disk.set(changes, CHANGED_AT)
  return disk
}
export const memory = noise(150_000, 3)
export const partsOf = (): readonly NewPart[] => [
  { kind: 'machine', name: 'machine', text: '{}' },
  {
    kind: 'memory',
    name: 'memory',
    body: (async function* () {
      yield memory
    })(),
  },
]
export const contentsOn = (leaseId: string): SnapshotContents => ({
  disk: { bytes: DISK_BYTES, leaseId, layers: [memorySource(DISK_BYTES, [{ offset: CHANGED_AT, bytes: changes }])] },
  properties: { image_type: 'snapshot' },
})
export const draftOf = (id: string): SnapshotDraft => ({
  id,
  name: 'snapshot',
  bytes: DISK_BYTES + memory.length,
  minDisk: 0,
  minRam: 0,
  properties: {},
})

/** The images in a folder, as a service that starts opens them. */
export async function openSnapshots(folder: string) {
  const stores = await importStores(folder)
  const service = await openImages({
    ...stores,
    limits: { of: async () => undefined },
    dialer: createDialer({ allowedHosts: [], allowedNetworks: [], allowedPorts: [] }),
    protections: noProtections,
    maxImageBytes: 2 ** 26,
    onProblem: (error) => {
      throw error
    },
  })
  return {
    ports: service.ports,
    snapshots: new ImageSnapshots(service.ports),
    async close(): Promise<void> {
      await service.close()
      await stores.close()
    },
  }
}

if (process.argv[1] === import.meta.filename) {
  const [folder = '', id = '', lease = ''] = process.argv.slice(2)
  const { snapshots } = await openSnapshots(folder)
  await snapshots.begin(alice, draftOf(id))
  for (const part of partsOf()) await snapshots.addPart(id, part)
  if (lease === 'give-up') await snapshots.giveUp(id)
  else await snapshots.save(id, contentsOn(lease))
  process.exit(0)
}
