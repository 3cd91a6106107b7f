import { isServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { recognise } from '../../disk/formats/index.ts'
import { readGpt } from '../../disk/guest/partitions/gpt.ts'
import { ChunkPool } from '../../host/chunk-pool.ts'
import { bootPatches } from '../../host/deploy/boot-patches.ts'
import type { FitTarget } from '../../host/deploy/fit.ts'
import { type ImageDisk, openImageDisk } from '../../host/deploy/image-disk.ts'
import { seedPatches } from '../../host/deploy/seed-partition.ts'
import { Target } from '../../host/deploy/target.ts'
import { type Deployed, writeDisk } from '../../host/deploy/write-disk.ts'
import type { ChunkOrigin } from '../../host/origin.ts'
import type { TransferState } from '../progress.ts'

/** What is fetched is written at once: little is asked for twice. */
const MEMORY_BYTES = 32 * MiB

export interface DeployWish {
  readonly origin: ChunkOrigin
  /** Of a block device or a file. */
  readonly path: string
  readonly isDry: boolean
  /** Whether the partition table is fitted to a disk that is larger than the image. */
  readonly isGrown: boolean
  /** For cloud-init, in a partition at the end of the disk; absent: none. */
  readonly seed?: { readonly imageId: string; readonly userData: Uint8Array }
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
  /** Asked first, also in a dry run. @throws where the image cannot start from there */
  readonly assertFits: (target: DeployTarget & FitTarget) => Promise<void>
  /** Asked before anything is written. @throws to write nothing */
  readonly confirm: (target: DeployTarget) => Promise<void>
}

/** What is about to be written over. */
export interface DeployTarget {
  readonly path: string
  /** Null: a file. */
  readonly device: string | null
  readonly bytes: number
  readonly sectorBytes: number
  readonly model: string | null
  readonly serial: string | null
  /** What is on it now: `mbr`, `gpt`, `ext` …; empty where nothing is recognised. */
  readonly holds: readonly string[]
  /** Nothing can be lost: a file that is not there, or empty. */
  readonly isBlank: boolean
}

export interface DeployOutcome extends Deployed {
  readonly target: DeployTarget
  readonly diskBytes: number
  /** Bytes that came over the line. */
  readonly fetchedBytes: number
  /** What is verified was read from the medium; else the system may have answered from its memory. */
  readonly readsMedium: boolean
  /** What became of the partition table. */
  readonly partitionTable: string | null
  /** Whether the kernel knows the new partition table; null where there is nothing to know. */
  readonly isReread: boolean | null
}

/**
 * Brings the disk of an image onto a machine's disk.
 * @throws ServiceError of the origin, the target and `confirm`; `cancelled`
 */
export async function deployImage(wish: DeployWish): Promise<DeployOutcome> {
  const { origin, path, isDry, isGrown, signal, onProgress } = wish
  await using opened = new AsyncDisposableStack()
  const pool = opened.adopt(new ChunkPool({ memoryBytes: MEMORY_BYTES }), (it) => it.close())
  const image = opened.adopt(await openImageDisk({ origin, pool, signal }), (it) => it.close())
  const target = opened.adopt(await Target.open(path, { isReadOnly: isDry, leastBytes: image.size, signal }), (it) => it.close())
  const described = await describe(target)
  const isDisk = described.device !== null
  await wish.assertFits({ ...described, tableSectorBytes: isDisk ? await tableSectorBytes(image) : null })
  if (!isDry) await wish.confirm(described)
  const { seed } = wish
  const seeded = seed ? await seedPatches(image, target.size, seed.imageId, seed.userData) : undefined
  const grown = isGrown && !seeded ? await bootPatches(image, target.source(), target.sectorBytes) : nothingMoved
  const { patches, note } = seeded ? { patches: seeded, note: SEEDED } : grown
  if (!isDry) await target.prepare()
  const { counters } = pool
  const leave = () => void image.close() // reads that wait for the service end
  signal.addEventListener('abort', leave, { once: true })
  opened.defer(() => signal.removeEventListener('abort', leave))
  const done = await writeDisk({
    image,
    target,
    patches,
    isDry,
    signal,
    onProgress: ({ writtenBytes, ...state }) =>
      onProgress({
        ...state,
        movedBytes: counters.bytesFetched,
        counts: { written: writtenBytes, fetched: counters.bytesFetched },
      }),
  })
  const isWritten = done.verifiedBytes > 0
  return {
    ...done,
    target: described,
    diskBytes: image.size,
    fetchedBytes: counters.bytesFetched,
    readsMedium: target.isDirect,
    partitionTable: note,
    isReread: isWritten ? await target.reread() : null,
  }
}

const SEEDED = 'a partition for cloud-init (cidata) lies at the end of the disk'
const nothingMoved = { patches: [], note: null }

/** A damaged table is told of when it is to be fitted to the disk. */
async function tableSectorBytes(image: ImageDisk): Promise<number | null> {
  const table = await readGpt(image).catch((error: unknown) => {
    if (isServiceError(error, 'invalid-image')) return undefined
    throw error
  })
  return table?.sectorBytes ?? null
}

async function describe(target: Target): Promise<DeployTarget> {
  const { path, device, size, sectorBytes } = target
  const bytesNow = await target.bytesNow()
  const { found } = await recognise(target.source())
  return {
    path,
    device: device?.name ?? null,
    bytes: size,
    sectorBytes,
    model: device?.model ?? null,
    serial: device?.serial ?? null,
    holds: found.map(({ name }) => name),
    isBlank: device === null && bytesNow === 0,
  }
}
