import { mkdir, readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { startImprint } from '../../test/e2e/image-service.ts'
import { must } from '../../test/peers/command.ts'
import { type Bench, type BenchCase, measured, type Row, secondsOf } from './bench-case.ts'
import { createImage, putFile } from './image-client.ts'
import { systemImages } from './sample-images.ts'
import { targets } from './targets.ts'

const VERSIONS = 4

/** A place that keeps images: how one goes in, and how many bytes all take. */
interface Keeper {
  readonly name: string
  put(path: string): Promise<void>
  bytes(): Promise<number>
}

export const storage: BenchCase = {
  name: 'storage',
  summary:
    'bytes that four related images take together, and seconds until each is in. IMPRINT_BENCH_IMAGES: a folder of raw images',
  tools: ['restic', 'borg'],
  async *run(bench) {
    const images = await imagesOf(bench)
    const ours = await startImprint({ dataFolder: join(bench.folder, 'storage-data') })
    const keepers = [imprint(ours), glance(bench), await restic(bench.folder), await borg(bench.folder)]
    const results = new Map<string, { seconds: number[]; bytes: number }>()
    for (const keeper of keepers) {
      const seconds: number[] = []
      for (const image of images) seconds.push(await secondsOf(() => keeper.put(image)))
      results.set(keeper.name, { seconds, bytes: await keeper.bytes() })
    }
    await ours.stop()
    const of = (name: string) => results.get(name)!
    const MiB = 2 ** 20
    for (const [peer, must] of [
      ['Glance', 8],
      ['restic', 1],
      ['borg', 1],
    ] as const) {
      const [mine, theirs] = [measured([of('Imprint').bytes / MiB]), measured([of(peer).bytes / MiB])]
      const row: Row = {
        what: `stored, ${images.length} images`,
        unit: 'MiB',
        imprint: mine,
        peer: { ...theirs, name: peer },
        must,
      }
      yield row
    }
    for (const [index, image] of images.entries()) {
      const [mine, theirs] = [measured([of('Imprint').seconds[index]!]), measured([of('restic').seconds[index]!])]
      yield {
        what: `ingest of ${basename(image)}`,
        unit: 's',
        imprint: mine,
        peer: { ...theirs, name: 'restic' },
        must: index === 0 ? 1 : 2,
      }
    }
  },
}

async function imagesOf({ folder, sizes }: Bench): Promise<readonly string[]> {
  const given = process.env.IMPRINT_BENCH_IMAGES
  if (!given) return systemImages(folder, sizes.versionBytes, VERSIONS)
  const order = ['base.raw', 'web-v1.raw', 'web-v2.raw', 'web-v1b.raw']
  const found = (await readdir(given)).filter((name) => name.endsWith('.raw'))
  const known = order.filter((name) => found.includes(name))
  return (known.length > 0 ? known : found.sort()).map((name) => join(given, name))
}

const diskUse = async (folder: string) => 1024 * Number((await must(['du', '-sk', folder])).split('\t')[0])

function imprint(service: Awaited<ReturnType<typeof startImprint>>): Keeper {
  const target = { imageUrl: service.imageUrl, token: service.cast.member.token }
  return {
    name: 'Imprint',
    put: async (path) => void (await putFile(target, await createImage(target), path)),
    bytes: () => diskUse(join(service.dataFolder, 'store')),
  }
}

function glance(bench: Bench): Keeper {
  const target = targets(bench).glance
  return {
    name: 'Glance',
    put: async (path) => void (await putFile(target, await createImage(target), path)),
    bytes: () => diskUse(bench.glance.glance.imageFolder),
  }
}

async function restic(folder: string): Promise<Keeper> {
  const repository = join(folder, 'restic')
  const env = { RESTIC_PASSWORD: 'bench', RESTIC_REPOSITORY: repository, RESTIC_CACHE_DIR: join(folder, 'restic-cache') }
  await must(['restic', 'init', '-q'], { env })
  return {
    name: 'restic',
    put: async (path) => void (await must(['restic', 'backup', '-q', path], { env })),
    bytes: () => diskUse(repository),
  }
}

async function borg(folder: string): Promise<Keeper> {
  const repository = join(folder, 'borg')
  await mkdir(repository)
  const env = {
    BORG_BASE_DIR: folder,
    BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes',
    BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes',
  }
  await must(['borg', 'init', '--encryption=none', repository], { env })
  return {
    name: 'borg',
    put: async (path) =>
      void (await must(['borg', 'create', '--compression', 'zstd,3', `${repository}::${basename(path)}`, path], { env })),
    bytes: () => diskUse(repository),
  }
}
