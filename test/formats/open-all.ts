/** Looks at every file of a folder as the service does, as what its name says (`N.FORMAT`) and as every other format. Run under strace. */
import { openSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { isServiceError } from '../../src/base/errors.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { formats, openImage, recognise } from '../../src/disk/formats/index.ts'

const folder = process.argv[2]!
const names = readdirSync(folder)
const READ_BYTES = 4096

const ofServices = (error: unknown): void => {
  if (!isServiceError(error)) throw error
}
async function look(path: string): Promise<void> {
  const file = await openFileSource(path)
  await recognise(file)
  for (const { name, audit, snapshots } of formats) {
    await audit(file).catch(ofServices)
    await snapshots?.(file).catch(ofServices)
    try {
      const disk = await openImage(name, { ...file, close: async () => {} })
      for (const at of [0, Math.floor(disk.size / 2), Math.max(0, disk.size - READ_BYTES)])
        await disk.read(at, Math.min(READ_BYTES, disk.size - at))
    } catch (error) {
      ofServices(error)
    }
  }
  await file.close()
}

await look(join(folder, names[0]!)) // what is loaded once is loaded now
openSync(join(folder, 'from here'), 'w')
for (const name of names) await look(join(folder, name))
openSync(join(folder, 'to here'), 'w')
