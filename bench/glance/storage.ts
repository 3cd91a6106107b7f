import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { MiB } from '../../src/base/units.ts'
import { startImprint } from '../../test/e2e/image-service.ts'
import { must } from '../../test/peers/command.ts'
import { type Bench, type BenchCase, type Measured, measured, type Row, secondsOf } from './bench-case.ts'
import { commandLine } from './command-line.ts'
import { createImage, deleteImage, putFile } from './image-client.ts'
import { systemImages } from './sample-images.ts'
import { targets } from './targets.ts'

const VERSIONS = 4

/** A place that keeps images: how one goes in, and how many bytes all take. */
interface Keeper {
  put(path: string): Promise<void>
  bytes(): Promise<number>
  end(): Promise<void>
}
interface Kept {
  readonly bytes: number
  /** Of each image. */
  readonly seconds: readonly number[]
}

export const storage: BenchCase = {
  name: 'storage',
  summary:
    'bytes that four related images take together, and seconds until each is in, by `imprint image add` and by PUT. IMPRINT_BENCH_IMAGES: a folder of raw images',
  tools: ['restic', 'borg'],
  async *run(bench) {
    const images = await imagesOf(bench)
    const keepers: Readonly<Record<string, (round: string) => Promise<Keeper>>> = {
      'image add': (round) => imprint(round, 'add'),
      PUT: (round) => imprint(round, 'put'),
      Glance: () => glance(bench),
      restic,
      borg,
    }
    const rounds = new Map(Object.keys(keepers).map((name) => [name, [] as Kept[]]))
    for (let round = 0; round < bench.sizes.repeats; round += 1) {
      for (const [name, open] of Object.entries(keepers)) {
        const folder = await mkdtemp(join(bench.folder, 'keeper-'))
        rounds.get(name)!.push(await keep(await open(folder), images))
        await rm(folder, { recursive: true })
      }
    }
    const bytesOf = (name: string) => measured(rounds.get(name)!.map(({ bytes }) => bytes / MiB))
    const secondsOfImage = (name: string, index: number) => measured(rounds.get(name)!.map(({ seconds }) => seconds[index]!))
    const row = (what: string, unit: Row['unit'], ours: Measured, theirs: Measured, name: string, must: number): Row => {
      return { what, unit, imprint: ours, peer: { ...theirs, name }, must }
    }
    for (const way of ['image add', 'PUT']) {
      for (const [peer, must] of [
        ['Glance', 8],
        ['restic', 1],
        ['borg', 1],
      ] as const)
        yield row(`stored, ${images.length} images by ${way}`, 'MiB', bytesOf(way), bytesOf(peer), peer, must)
      for (const [index, image] of images.entries()) {
        const [mine, theirs] = [secondsOfImage(way, index), secondsOfImage('restic', index)]
        yield row(`ingest of ${basename(image)} by ${way}`, 's', mine, theirs, 'restic', index === 0 ? 1 : 2)
      }
    }
  },
}

async function keep(keeper: Keeper, images: readonly string[]): Promise<Kept> {
  const seconds: number[] = []
  for (const image of images) seconds.push(await secondsOf(() => keeper.put(image)))
  const bytes = await keeper.bytes()
  await keeper.end()
  return { bytes, seconds }
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

async function imprint(folder: string, way: 'add' | 'put'): Promise<Keeper> {
  const service = await startImprint({ dataFolder: join(folder, 'data') })
  const target = { imageUrl: service.imageUrl, token: service.cast.member.token }
  const { add } = await commandLine(service, folder)
  return {
    put: way === 'add' ? add : async (path) => void (await putFile(target, await createImage(target), path)),
    bytes: () => diskUse(join(service.dataFolder, 'store')),
    end: () => service.stop(),
  }
}

async function glance(bench: Bench): Promise<Keeper> {
  const target = targets(bench).glance
  const ids: string[] = []
  const before = await diskUse(bench.glance.glance.imageFolder)
  return {
    async put(path) {
      ids.push(await createImage(target))
      await putFile(target, ids.at(-1)!, path)
    },
    bytes: async () => (await diskUse(bench.glance.glance.imageFolder)) - before,
    async end() {
      for (const id of ids) await deleteImage(target, id)
    },
  }
}

const nothingToEnd = async (): Promise<void> => {}

async function restic(folder: string): Promise<Keeper> {
  const repository = join(folder, 'restic')
  const env = { RESTIC_PASSWORD: 'bench', RESTIC_REPOSITORY: repository, RESTIC_CACHE_DIR: join(folder, 'restic-cache') }
  await must(['restic', 'init', '-q'], { env })
  return {
    end: nothingToEnd,
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
    end: nothingToEnd,
    put: async (path) =>
      void (await must(['borg', 'create', '--compression', 'zstd,3', `${repository}::${basename(path)}`, path], { env })),
    bytes: () => diskUse(repository),
  }
}
