import { createHash } from 'node:crypto'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { type NewMachine, writeOva } from '../../disk/containers/index.ts'
import type { FormatWriter } from '../../disk/formats/index.ts'
import type { TransferState } from '../progress.ts'
import { spooled } from './scratch-file.ts'

export interface OvaWish {
  /** Of the machine. */
  readonly name: string
  readonly machine: NewMachine
  /** What the disk's file in the package may have. */
  readonly maxBytes: number
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}
type StreamWriter = Extract<FormatWriter, { pack: unknown }>

const SECTOR_BYTES = 512

/**
 * Writes a disk as the package of a machine. Its manifest and the size of its file come before the disk, so that the file is made first
 * and kept in one without a name.
 */
export function ovaWriter(vmdk: StreamWriter, { name, machine, maxBytes, signal, onProgress }: OvaWish): StreamWriter {
  return {
    subformat: vmdk.subformat,
    async *pack(disk) {
      const hash = createHash('sha256')
      let doneBytes = 0
      const watched: BlockSource = {
        ...disk,
        async read(offset, length, into) {
          doneBytes = Math.max(doneBytes, offset + length)
          return disk.read(offset, length, into)
        },
      }
      const hashed = async function* () {
        for await (const piece of vmdk.pack(watched, { signal })) {
          hash.update(piece)
          yield piece
        }
      }
      const file = await spooled(hashed(), {
        what: 'the disk of the OVA',
        totalBytes: null,
        maxBytes,
        signal,
        onProgress: ({ movedBytes, counts }) =>
          onProgress({ phase: 'Packing', doneBytes, totalBytes: disk.size, movedBytes, ...(counts ? { counts } : {}) }),
      })
      try {
        const capacityBytes = Math.ceil(disk.size / SECTOR_BYTES) * SECTOR_BYTES
        const about = { diskFormat: 'vmdk', capacityBytes, fileBytes: file.size, sha256: hash.digest('hex'), file } as const
        yield* writeOva({ ...machine, name, disks: [about] }, { signal })
      } finally {
        await file.close()
      }
    },
  }
}
