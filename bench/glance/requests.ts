import { join } from 'node:path'
import { populate, populationImage } from '../../src/store/catalog/sqlite/population.suite.ts'
import { startImprint } from '../../test/e2e/image-service.ts'
import { type Bench, type BenchCase, measured, type Row } from './bench-case.ts'
import { populateGlance } from './glance-population.ts'
import type { ImageTarget } from './image-client.ts'
import { targets } from './targets.ts'
import { load } from './wrk.ts'

const CONNECTIONS = { create: 16, list: 4 }
const P99_AT_MOST_MS = 20

export const requests: BenchCase = {
  name: 'requests',
  summary: 'creates and lists a second, lists among few and among many images, with their 99th percentile',
  tools: ['wrk'],
  async *run(bench) {
    const both = targets(bench)
    const json = { name: 'bench', disk_format: 'raw', container_format: 'bare', os_distro: 'debian', tags: ['a'] }
    const unlimited = { imprint: { ...both.imprint, token: bench.imprint.cast.admin.token }, glance: both.glance }
    yield* measure(bench, unlimited, 'create', '/v2/images', 10, { connections: CONNECTIONS.create, json })
    for (const count of bench.sizes.populations) yield* lists(bench, count)
  },
}

async function* lists(bench: Bench, count: number): AsyncIterable<Row> {
  await populateGlance(bench.glance, count)
  // the records go straight into the database of a service that is not running
  const dataFolder = join(bench.folder, `population-${count}`)
  const first = await startImprint({ dataFolder })
  await first.stop()
  populate(join(dataFolder, 'catalog.db'), count, first.cast.member.projectId)
  const imprint = await startImprint({ dataFolder })
  try {
    const both = targets({ ...bench, imprint })
    const must = count > 10_000 ? 100 : 20
    const some = populationImage(47).name
    const kinds: Readonly<Record<string, string>> = {
      'newest 25': '/v2/images?limit=25',
      'by name': `/v2/images?limit=25&name=${some}`,
      'by tag': '/v2/images?limit=25&tag=golden',
      'by property': '/v2/images?limit=25&os_distro=alpine',
      'after a deep marker': `/v2/images?limit=25&marker=${populationImage(Math.floor((count * 0.9) / 20) * 20 + 7).id}`,
    }
    for (const [kind, path] of Object.entries(kinds)) {
      const what = `list ${kind}, among ${count}`
      yield* measure(bench, both, what, path, kind === 'newest 25' ? must : undefined, { connections: CONNECTIONS.list })
    }
  } finally {
    await imprint.stop()
  }
}

async function* measure(
  { folder, sizes }: Bench,
  { imprint, glance }: { readonly imprint: ImageTarget; readonly glance: ImageTarget },
  what: string,
  path: string,
  must: number | undefined,
  options: { readonly connections: number; readonly json?: unknown },
): AsyncIterable<Row> {
  const of = ({ imageUrl, token }: ImageTarget) =>
    load(folder, { url: imageUrl + path, token, seconds: sizes.seconds, ...options })
  const results = { imprint: [] as Awaited<ReturnType<typeof of>>[], glance: [] as Awaited<ReturnType<typeof of>>[] }
  for (let round = 0; round < sizes.repeats; round++) {
    results.glance.push(await of(glance))
    results.imprint.push(await of(imprint))
  }
  const rates = (of: typeof results.imprint) => measured(of.map((result) => result.perSecond))
  const p99 = (of: typeof results.imprint) => measured(of.map((result) => result.p99Ms))
  const name = 'Glance'
  const row = { imprint: rates(results.imprint), peer: { ...rates(results.glance), name } }
  yield { what: `${what}, ${options.connections} clients`, unit: '/s', ...row, ...(must ? { must } : {}) }
  const late = { imprint: p99(results.imprint), peer: { ...p99(results.glance), name } }
  yield { what: `${what}, 99th percentile`, unit: 'ms', ...late, ...(options.json ? {} : { atMost: P99_AT_MOST_MS }) }
}
