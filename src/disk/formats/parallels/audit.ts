import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { tableParts } from '../../block/data-in-file.ts'
import { UsedUnits } from '../../block/used-units.ts'
import type { OpenOptions } from '../format-driver.ts'
import { SLICE_BYTES, segmentsOf } from './disk.ts'
import { BAT_OFFSET, readHeader, refuse } from './header.ts'

/** Of the file: one bit each, 256 MiB at most, of which memory is used where blocks are. */
const MAX_BLOCKS = 2 ** 31

/** Walks the BAT, but for what the file has no data for. Blocks are the same number of bytes apart, or some multiple. @throws ServiceError `invalid-image` | `unsupported` */
export async function auditFile(file: BlockSource, given: OpenOptions = {}): Promise<readonly string[]> {
  const h = await readHeader(file, given)
  const { blockBytes, virtualBytes } = h
  const blocks = Math.ceil(file.size / blockBytes)
  if (blocks > MAX_BLOCKS) {
    throw new ServiceError('too-large', `ploop: the file has ${blocks} clusters; at most ${MAX_BLOCKS} can be checked`, {
      blocks,
    })
  }
  const used = new UsedUnits(blocks)
  let phase: number | undefined
  let isCutOff = false
  const needed = Math.ceil(virtualBytes / blockBytes) * 4
  for await (const { bytes, first } of tableParts(file, {
    offset: BAT_OFFSET,
    bytes: needed,
    entryBytes: 4,
    partBytes: SLICE_BYTES,
  })) {
    const start = first * blockBytes
    const stop = Math.min(start + (bytes.length / 4) * blockBytes, virtualBytes)
    for (const segment of segmentsOf(bytes, start, start, stop, h, file.size)) {
      if (segment.kind !== 'data') continue
      const { offset, hostOffset } = segment
      phase ??= hostOffset % blockBytes
      if (hostOffset % blockBytes !== phase || used.take(Math.floor(hostOffset / blockBytes), 1) >= 0) {
        throw refuse(
          'overlap',
          `the block for byte ${offset} of the disk lies on another one, at byte ${hostOffset} of the file`,
          {
            offset,
            hostOffset,
          },
        )
      }
      isCutOff ||= hostOffset + blockBytes > file.size
    }
  }
  const warnings: string[] = []
  if (h.isInUse) warnings.push('ploop: the file was not closed, or was copied while it was open; the disk is read as it is')
  if (isCutOff) warnings.push('ploop: the file ends inside its last cluster; what is missing reads as zeros')
  return warnings
}
