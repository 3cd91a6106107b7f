import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { must } from '../../test/peers/command.ts'
import { type BenchCase, measured } from './bench-case.ts'
import { createImage, deleteImage, type ImageTarget, putFile } from './image-client.ts'
import { halfFullImage } from './sample-images.ts'
import { targets } from './targets.ts'

const AT_MOST_MIB = 300
const SAMPLE_MS = 200

export const memory: BenchCase = {
  name: 'memory',
  summary: 'most memory that the processes of the service have resident while images are uploaded side by side',
  tools: ['curl', 'ps'],
  async *run(bench) {
    const { folder, sizes, imprint, glance } = bench
    const both = targets(bench)
    const file = await halfFullImage(join(folder, 'memory.raw'), sizes.imageBytes)
    const ours = await peak(imprint.pid, () => uploadSideBySide(both.imprint, file, sizes.parallelUploads))
    const theirs = await peak(glance.glance.pid, () => uploadSideBySide(both.glance, file, sizes.parallelUploads))
    yield {
      what: `resident under ${sizes.parallelUploads} uploads side by side`,
      unit: 'MiB',
      imprint: measured([ours]),
      peer: { ...measured([theirs]), name: 'Glance' },
      atMost: AT_MOST_MIB,
    }
  },
}

async function uploadSideBySide(target: ImageTarget, file: string, count: number): Promise<void> {
  const ids = await Promise.all(Array.from({ length: count }, () => createImage(target)))
  await Promise.all(ids.map((id) => putFile(target, id, file)))
  for (const id of ids) await deleteImage(target, id)
}

/** MiB: the largest sum over the processes of the group, looked at every so often. */
async function peak(group: number, work: () => Promise<void>): Promise<number> {
  let most = 0
  let done = false
  const working = work().finally(() => {
    done = true
  })
  while (!done) {
    most = Math.max(most, await residentMiB(group))
    await Promise.race([working, pause(SAMPLE_MS)])
  }
  await working
  return most
}

async function residentMiB(group: number): Promise<number> {
  const pids = (await must(['ps', '-o', 'pid=', '-g', String(group)])).split('\n').filter(Boolean)
  const sizes = await Promise.all(pids.map((pid) => readFile(`/proc/${pid.trim()}/status`, 'utf8').catch(() => '')))
  return sizes.reduce((sum, status) => sum + Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0), 0) / 1024
}
