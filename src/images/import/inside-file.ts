import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { type Inside, lookInside } from '../../disk/containers/index.ts'
import { recognise } from '../../disk/formats/index.ts'
import type { Lease } from '../../store/chunks/chunk-store.ts'
import { CHOOSING } from '../examine/examination.ts'
import type { Declared, ImagePorts } from '../ports.ts'
import { ownerOfChunks } from '../transfer.ts'
import { type HeldImport, reserving } from './held-image.ts'

/** Containers that an import takes off. The others are what the image is to be. */
const takenOff: readonly string[] = ['bare', 'ova', 'ovf']

export interface InsideFile {
  /** The file in the file. Closing it closes all. */
  readonly file: BlockSource
  /** What lay around it; undefined: nothing, and it is the file itself. */
  readonly around: Pick<Inside, 'layers' | 'appliance'> | undefined
  /** What was unpacked on the way, to be given up in the end. */
  readonly leases: readonly Lease[]
}

/**
 * What lies inside the file of an import. Archives and descriptors are parsed by the examiner first, within its limits, and only then here,
 * where the same bytes give the same result; what is compressed in them is unpacked into the chunk store, with room in the quota, as a
 * download is.
 * @param stored closed where this fails
 * @throws ServiceError of `lookInside` and the examiner; `over-quota`, `too-large`, `cancelled`
 */
export async function insideOf(
  ports: ImagePorts,
  held: HeldImport,
  stored: BlockSource,
  declared: Declared,
  following: { readonly signal: AbortSignal; readonly onProgress: (bytes: number) => void },
): Promise<InsideFile> {
  const { method } = held.task.request
  const member = method.name === 'copy-image' ? undefined : method.member
  const leases: Lease[] = []
  const { signal, onProgress } = following
  const examine = (file: BlockSource) =>
    ports.examine(leftOpen(file), { ...declared, package: { member: member ?? null } }, signal)
  try {
    if (!takenOff.includes(declared.containerFormat)) return { file: stored, around: undefined, leases }
    await examine(stored)
    const inside = await lookInside(stored, {
      recognise,
      async keep(bytes) {
        const { manifest, lease } = await ports.chunks.ingest(reserving(ports, held, bytes), {
          owner: ownerOfChunks(held.image),
          maxBytes: ports.settings.maxImageBytes,
          signal,
          onProgress,
        })
        leases.push(lease)
        const kept = await ports.chunks.open(manifest)
        await examine(kept).catch(async (error: unknown) => {
          await kept.close()
          throw error
        })
        return kept
      },
      maxBytes: ports.settings.maxImageBytes,
      member,
      choosing: CHOOSING,
      signal,
    })
    if (inside.parts) {
      const problem = 'the disk in the archive is in several files, which is not taken: put it together first, by imprint convert'
      throw new ServiceError('unsupported', problem, { reason: 'unsupported', parts: inside.parts.size + 1 })
    }
    return { file: inside.file, around: inside.layers.length > 0 ? inside : undefined, leases }
  } catch (error) {
    await stored.close()
    for (const lease of leases) await lease.abandon().catch(() => undefined) // ends with the process at the latest
    throw error
  }
}

/** To be closed by who has it, and not by who is given this. */
export const leftOpen = (file: BlockSource): BlockSource => ({
  size: file.size,
  read: (offset, length, into) => file.read(offset, length, into),
  extents: (offset, length) => file.extents(offset, length),
  close: async () => {},
})
