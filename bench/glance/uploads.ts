import { join } from 'node:path'
import { type BenchCase, type Row, secondsOf, sideBySide } from './bench-case.ts'
import { commandLine } from './command-line.ts'
import { createImage, deleteImage, type ImageTarget, putFile } from './image-client.ts'
import { halfFullImage, mostlyEmptyImage, nextVersion } from './sample-images.ts'
import { targets } from './targets.ts'

export const uploads: BenchCase = {
  name: 'uploads',
  summary: 'seconds until an image is active: new, the same again, its next version, mostly empty, and by `imprint image add`',
  tools: ['curl'],
  async *run(bench) {
    const { folder, sizes } = bench
    const { imprint, glance } = targets(bench)
    const file = join(folder, 'image.raw')
    const put =
      (target: ImageTarget, path: string, keep = false) =>
      async () => {
        const id = await createImage(target)
        const seconds = await putFile(target, id, path)
        if (!keep) await deleteImage(target, id)
        return seconds
      }
    const row = (what: string, times: Awaited<ReturnType<typeof sideBySide>>, must: number, aim = must): Row => {
      return { what, unit: 's', imprint: times.imprint, peer: { ...times.peer, name: 'Glance' }, must, aim }
    }

    const fresh = await sideBySide(
      sizes.repeats,
      async () => put(imprint, await halfFullImage(file, sizes.imageBytes))(),
      async () => put(glance, await halfFullImage(file, sizes.imageBytes))(),
    )
    yield row('PUT of a new image, half of it zeros', fresh, 2, 3)

    await put(imprint, file, true)()
    yield row('PUT of the same again', await sideBySide(sizes.repeats, put(imprint, file), put(glance, file)), 3)

    const next = await nextVersion(file, join(folder, 'next.raw'))
    yield row('PUT of its next version, 2 % changed', await sideBySide(sizes.repeats, put(imprint, next), put(glance, next)), 3)

    const empty = await mostlyEmptyImage(join(folder, 'empty.raw'), sizes.emptyBytes)
    yield row('PUT of a mostly empty image', await sideBySide(sizes.repeats, put(imprint, empty), put(glance, empty)), 3)

    const imprintAdd = await commandLine(bench.imprint, folder)
    const again = await nextVersion(next, join(folder, 'after.raw'))
    const add = async () => {
      const seconds = await secondsOf(() => imprintAdd.add(again))
      await imprintAdd.deleteAll()
      return seconds
    }
    const added = await sideBySide(sizes.repeats, add, put(glance, again))
    yield row('imprint image add of the version after it, against PUT', added, 10)
  },
}
