import type { BlockSource, Extent } from '../../../disk/block/block-source.ts'
import { type FrameLink, MAX_BODY_BYTES } from './frames.ts'
import { failureOf } from './words.ts'

/** An answer has no more runs; what comes behind them is asked for again. */
const MAX_RUNS = 4096

/** What is asked of a disk that is open there, one after the other: `offset` and `length` in bytes. */
export interface DiskQuestion {
  readonly ask: 'read' | 'extents'
  readonly offset: number
  readonly length: number
}

/** Answers what is asked of the disk until the connection ends, and closes it. */
export async function serveDisk(link: FrameLink, disk: BlockSource): Promise<void> {
  try {
    await link.send({ done: { size: disk.size } })
    for (let frame = await link.next(); frame; frame = await link.next()) {
      const question = frame.head as unknown as DiskQuestion
      try {
        if (question.ask === 'read')
          await link.send({}, await disk.read(question.offset, Math.min(question.length, MAX_BODY_BYTES)))
        else await link.send({ runs: await runsOf(disk, question) })
      } catch (error) {
        await link.send({ failed: failureOf(error, () => {}) })
      }
    }
  } catch {
    link.destroy() // whoever asked is gone
  } finally {
    await disk.close()
  }
}

async function runsOf(disk: BlockSource, { offset, length }: DiskQuestion): Promise<readonly Extent[]> {
  const runs: Extent[] = []
  for await (const run of disk.extents(offset, length)) {
    runs.push(run)
    if (runs.length === MAX_RUNS) break
  }
  return runs
}
