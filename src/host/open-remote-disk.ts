import { type BlockSource, stack } from '../disk/block/block-source.ts'
import { readAhead } from '../disk/filters/read-ahead.ts'
import { openImage } from '../disk/formats/index.ts'
import { type BootFilters, bootFilters } from './boot-filters.ts'
import type { OriginFile } from './origin.ts'
import { RemoteFile, type RemoteFileOptions } from './remote-file.ts'

/** What is still to be said to the service when the disk goes has so long. */
const FAREWELL_MS = 5_000

export interface RemoteDiskOptions extends RemoteFileOptions {
  /** False: no record of an earlier start is used, and none is made. */
  readonly isBoot?: boolean
}

const noFilters: BootFilters = { filters: [], finish: async () => undefined }

export interface RemoteDisk {
  readonly disk: BlockSource
  /** Of the file that it is in. */
  readonly facts: OriginFile
  /** Before the disk is closed: what was learnt of the start of a machine goes to the service. */
  finish(): Promise<void>
}

/** The disk in a file that rests in a store elsewhere. Our own engine opens the file, here. */
export async function openRemoteDisk(options: RemoteDiskOptions): Promise<RemoteDisk> {
  const file = await RemoteFile.open(options)
  const over = new AbortController()
  try {
    const { facts } = file
    const ahead = readAhead({ prefetch: (offset, length) => file.prefetch(offset, length), unitBytes: facts.chunkBytes })
    const boot = options.isBoot === false ? noFilters : await bootFilters(options.origin, file, over.signal)
    const disk = await openImage(facts.diskFormat, stack(file, [ahead, ...boot.filters]))
    const finish = async () => {
      const late = setTimeout(() => over.abort(), FAREWELL_MS)
      await boot.finish()
      clearTimeout(late)
    }
    return { disk, facts, finish }
  } catch (error) {
    await file.close()
    throw error
  }
}
