/**
 * A process that writes to a scratch disk: `node scratch-writer.ts FOLDER ID SEED`. Begins when its input says so, and prints the
 * number of each step and the time once it is told that the step is done.
 */
import { once } from 'node:events'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { COW_BLOCK_BYTES } from '../../src/disk/filters/cow.ts'
import { ScratchDisks } from '../../src/store/scratch/scratch-disks.ts'
import { randomOf } from './busy-clients.ts'

export const DISK_BYTES = 6 * COW_BLOCK_BYTES + 700
const STEPS = 60

export type Step =
  | { readonly what: 'write' | 'zero' | 'trim'; readonly offset: number; readonly length: number; readonly byte: number }
  | { readonly what: 'flush' }
  | { readonly what: 'seal' }

export function stepsOf(seed: number): readonly Step[] {
  const random = randomOf(seed)
  const below = (most: number) => Math.floor(random() * most)
  return Array.from({ length: STEPS }, (_, n): Step => {
    if (n % 6 === 5) return { what: n % 12 === 5 ? 'flush' : 'seal' }
    const offset = random() < 0.3 ? below(7) * COW_BLOCK_BYTES : below(DISK_BYTES)
    const length = Math.min(DISK_BYTES - offset, 1 + below(random() < 0.3 ? 3 * COW_BLOCK_BYTES : 9000))
    return { what: (['write', 'write', 'zero', 'trim'] as const)[below(4)]!, offset, length, byte: n + 1 }
  })
}

/** What is under the scratch disk. */
export const baseBytes = (): Uint8Array => new Uint8Array(DISK_BYTES).fill(200, 0, 3 * COW_BLOCK_BYTES + 100)
/** @param bootId of a system that was started since, after a power cut */
export const openScratch = async (folder: string, id: string, bootId?: string) =>
  (await ScratchDisks.at(folder, bootId)).open(id, bytesSource(baseBytes()))

if (import.meta.main) {
  const [folder = '', id = '', seed = ''] = process.argv.slice(2)
  const disks = await ScratchDisks.at(folder)
  process.stdout.write('ready\n')
  await once(process.stdin, 'data')
  await disks.create(id, DISK_BYTES, async () => console.log(`made ${Date.now() + 1}`))
  const disk = await openScratch(folder, id)
  for (const [n, step] of stepsOf(Number(seed)).entries()) {
    if (step.what === 'flush') await disk.flush()
    else if (step.what === 'seal') await disk.seal()
    else if (step.what === 'write') await disk.write(step.offset, new Uint8Array(step.length).fill(step.byte))
    else if (step.what === 'zero') await disk.writeZeroes(step.offset, step.length, true)
    else await disk.trim(step.offset, step.length)
    console.log(`${n} ${Date.now() + 1}`) // the clock has cut off a part of the millisecond
  }
  process.exit() // without the flush of closing
}
