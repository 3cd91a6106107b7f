import { randomUUID } from 'node:crypto'
import { absent, type ImageLedger, queued } from './image-ledger.ts'
import { type ChunkUpload, type ImageRequests, noise, Refused } from './image-requests.ts'

/** Numbers that look random, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * Clients that create, upload, stage and import, send by chunks, rename and delete, until the service is gone or `turns` are
 * over. Their disks are made of few parts, so that what one deletes another is sending. Every step stands in the ledger.
 * @returns uploads by chunks that were not finished
 */
export async function keepBusy(
  images: ImageRequests,
  ledger: ImageLedger,
  options: { readonly clients: number; readonly seed: number; readonly turns?: number },
): Promise<readonly ChunkUpload[]> {
  const open = new Set<ChunkUpload>()
  const client = async (seed: number): Promise<void> => {
    const random = randomOf(seed)
    const mine: string[] = []
    for (let turn = 0; turn < (options.turns ?? Number.POSITIVE_INFINITY); turn += 1) {
      const id = mine[Math.floor(random() * mine.length)]
      if (id && (mine.length > 4 || random() < 0.3)) {
        mine.splice(mine.indexOf(id), 1)
        await ledger.make(id, absent, () => images.delete(id))
      } else if (id && random() < 0.2) {
        const name = `name ${seed} ${turn}`
        await ledger.rename(id, name, () => images.rename(id, name))
      } else {
        mine.push(await add(images, ledger, open, diskOfParts(random), random()))
      }
    }
  }
  const all = Array.from({ length: options.clients }, (_, at) => client(options.seed * 100 + at))
  for (const outcome of await Promise.allSettled(all)) {
    if (outcome.status === 'rejected' && outcome.reason instanceof Refused) throw outcome.reason
    if (outcome.status === 'rejected' && options.turns !== undefined) throw outcome.reason
  }
  return [...open]
}

async function add(
  images: ImageRequests,
  ledger: ImageLedger,
  open: Set<ChunkUpload>,
  bytes: Buffer,
  way: number,
): Promise<string> {
  if (way < 0.3) {
    const upload = await images.beginUpload('by chunks', bytes)
    open.add(upload)
    ledger.name(upload.imageId, 'by chunks')
    await images.sendChunks(upload, bytes)
    const active = { is: 'active', bytes } as const
    await ledger.make(upload.imageId, active, () => images.commitUpload(upload, bytes), [queued])
    open.delete(upload)
    return upload.imageId
  }
  const id = randomUUID()
  ledger.name(id, 'whole')
  await ledger.make(id, queued, () => images.create(id, 'whole'))
  if (way < 0.8) await ledger.make(id, { is: 'active', bytes }, () => images.send(id, bytes))
  else {
    await ledger.make(id, { is: 'staged', bytes }, () => images.send(id, bytes, 'stage'))
    await ledger.make(id, { is: 'active', bytes }, async () => {
      await images.import(id)
      while ((await images.show(id))?.status === 'importing');
    })
  }
  return id
}

const PARTS = 12

function diskOfParts(random: () => number): Buffer {
  const parts = Array.from({ length: 2 + Math.floor(random() * 5) }, () => noise(Math.floor(random() * PARTS), 65536))
  return Buffer.concat([...parts, noise(100 + Math.floor(random() * 1e9), 512)])
}
