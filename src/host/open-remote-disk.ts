import { type BlockSource, stack } from '../disk/block/block-source.ts'
import { readAhead } from '../disk/filters/read-ahead.ts'
import { openImage } from '../disk/formats/index.ts'
import { type BootFilters, bootFilters } from './boot-filters.ts'
import type { OriginFile } from './origin.ts'
import { endedBy } from './patience.ts'
import { RemoteFile, type RemoteFileOptions } from './remote-file.ts'

const FAREWELL_MS = 5_000

export interface RemoteDiskOptions extends RemoteFileOptions {
  /** False: no record of an earlier start is used, and none is made. */
  readonly isBoot?: boolean
  /** What is still to be said to the service when the disk goes has so long. */
  readonly farewellMs?: number
}

const noFilters: BootFilters = { filters: [], finish: async () => undefined }

export interface RemoteDisk {
  readonly disk: BlockSource
  /** Of the file that it is in. */
  readonly facts: OriginFile
  /** Before the disk is closed: what was learnt of the start of a machine goes to the service, if that answers soon. */
  finish(): Promise<void>
}

/** The disk in a file that rests in a store elsewhere. Our own engine opens the file, here. */
export async function openRemoteDisk(options: RemoteDiskOptions): Promise<RemoteDisk> {
  const file = await RemoteFile.open(options)
  const over = new AbortController()
  try {
    const { facts } = file
    const ahead = readAhead({ prefetch: (offset, length) => file.prefetch(offset, length), unitBytes: facts.chunkBytes })
    const recorded = () => bootFilters(options.origin, file, over.signal)
    const boot = options.isBoot === false ? noFilters : await endedBy(options.signal, over, recorded)
    options.signal?.throwIfAborted()
    const disk = await openImage(facts.diskFormat, stack(file, [ahead, ...boot.filters]))
    const finish = async () => {
      const late = Promise.withResolvers<void>()
      const timer = setTimeout(late.resolve, options.farewellMs ?? FAREWELL_MS)
      await Promise.race([boot.finish(), late.promise])
      clearTimeout(timer)
      over.abort()
    }
    return { disk, facts, finish }
  } catch (error) {
    await file.close()
    throw error
  }
}
