import type { DocumentReader, DocumentWriter, StoredDocument } from '../store/catalog/catalog.ts'
import { isId, type SnapshotRecord, type VolumeRecord } from './records.ts'

/** How volumes and their snapshots lie among the catalog's documents: kinds, keys and indexes are named in this file only. */

const PAGE = 500
/** A list is never read further than this: one machine has a fraction of it. */
export const MAX_LISTED = 10_000

type Index = { readonly name: 'project' | 'volume'; readonly value: string }

async function all<T>(docs: DocumentReader, kind: string, index?: Index): Promise<readonly T[]> {
  const items: T[] = []
  let after: string | undefined
  while (items.length < MAX_LISTED) {
    const query = { ...(index ? { index } : {}), ...(after ? { after } : {}), limit: PAGE }
    const page: readonly StoredDocument<T>[] = await docs.list<T>(kind, query)
    for (const { body } of page) items.push(body)
    after = page.at(-1)?.key
    if (page.length < PAGE || after === undefined) break
  }
  return items
}

export const volumes = {
  get: async (docs: DocumentReader, id: string): Promise<VolumeRecord | undefined> =>
    isId(id) ? (await docs.get<VolumeRecord>('volume', id))?.body : undefined,
  ofProject: (docs: DocumentReader, projectId: string) =>
    all<VolumeRecord>(docs, 'volume', { name: 'project', value: projectId }),
  list: (docs: DocumentReader) => all<VolumeRecord>(docs, 'volume'),
  put: async (docs: DocumentWriter, volume: VolumeRecord): Promise<void> => {
    await docs.put('volume', volume.id, volume, { indexes: { project: volume.projectId } })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('volume', id),
}

export const snapshots = {
  get: async (docs: DocumentReader, id: string): Promise<SnapshotRecord | undefined> =>
    isId(id) ? (await docs.get<SnapshotRecord>('volume-snapshot', id))?.body : undefined,
  ofProject: (docs: DocumentReader, projectId: string) =>
    all<SnapshotRecord>(docs, 'volume-snapshot', { name: 'project', value: projectId }),
  ofVolume: (docs: DocumentReader, volumeId: string) =>
    all<SnapshotRecord>(docs, 'volume-snapshot', { name: 'volume', value: volumeId }),
  list: (docs: DocumentReader) => all<SnapshotRecord>(docs, 'volume-snapshot'),
  put: async (docs: DocumentWriter, snapshot: SnapshotRecord): Promise<void> => {
    const { id, projectId, volumeId } = snapshot
    await docs.put('volume-snapshot', id, snapshot, { indexes: { project: projectId, volume: volumeId } })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('volume-snapshot', id),
}
