import { join } from 'node:path'
import { type BenchCase, sideBySide } from './bench-case.ts'
import { createImage, deleteImage, getFile, putFile } from './image-client.ts'
import { halfFullImage } from './sample-images.ts'
import { targets } from './targets.ts'

const FIRST_BYTE_ROUNDS = 7

export const downloads: BenchCase = {
  name: 'downloads',
  summary: 'seconds until the last byte, and milliseconds until the first; Glance sends its file without verifying it',
  tools: ['curl'],
  async *run(bench) {
    const { folder, sizes } = bench
    const { imprint, glance } = targets(bench)
    const file = await halfFullImage(join(folder, 'download.raw'), sizes.imageBytes)
    const [ours, theirs] = [await createImage(imprint), await createImage(glance)]
    await putFile(imprint, ours, file)
    await putFile(glance, theirs, file)

    const whole = await sideBySide(
      sizes.repeats,
      () => getFile(imprint, ours),
      () => getFile(glance, theirs),
    )
    const peer = (values: typeof whole) => ({ ...values.peer, name: 'Glance' })
    yield { what: 'download, every byte verified', unit: 's', imprint: whole.imprint, peer: peer(whole), must: 0.5, aim: 1 }

    const first = await sideBySide(
      FIRST_BYTE_ROUNDS,
      async () => 1000 * (await getFile(imprint, ours, 'time_starttransfer')),
      async () => 1000 * (await getFile(glance, theirs, 'time_starttransfer')),
    )
    yield { what: 'first byte of a download', unit: 'ms', imprint: first.imprint, peer: peer(first), atMost: 20 }
    await deleteImage(imprint, ours)
    await deleteImage(glance, theirs)
  },
}
