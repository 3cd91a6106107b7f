/**
 * Microseconds for each kind of list among 100,000 images, and for a create, straight at the SQLite catalog:
 * `node bench/catalog-list.ts [images]`.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ImageQuery, SortKey } from '../src/store/catalog/catalog.ts'
import { DEMO, populate, populationImage } from '../src/store/catalog/sqlite/population.suite.ts'
import { SqliteCatalog } from '../src/store/catalog/sqlite/sqlite-catalog.ts'

const count = Number(process.argv[2] ?? 100_000)
const ROUNDS = 300
const folder = mkdtempSync(join(tmpdir(), 'imprint-bench-'))
const path = join(folder, 'catalog.db')

const sortedBy = (field: SortKey['field'], direction: SortKey['direction']): readonly SortKey[] => [
  { field, direction },
  { field: 'createdAt', direction },
  { field: 'id', direction },
]
const bySize = sortedBy('size', 'asc')
const deep = populationImage(Math.floor(count / 1000) * 900 + 7).id // a demo image nine tenths down
const kinds: Record<string, (round: number) => Partial<ImageQuery>> = {
  'newest 25': () => ({}),
  'by name': (round) => ({ names: [populationImage(20 * round + 7).name ?? ''] }),
  'by tag golden (1 %)': () => ({ tags: ['golden'] }),
  'by tag nightly (99 %)': () => ({ tags: ['nightly'] }),
  'by property os_distro (10 %)': () => ({ properties: { os_distro: 'alpine' } }),
  'by property build_id (1)': (round) => ({ properties: { build_id: `b${20 * round + 7}` } }),
  'by tag and property': () => ({ tags: ['golden'], properties: { os_distro: 'alpine' } }),
  'sort by size': () => ({ sort: bySize }),
  'sort by name': () => ({
    sort: sortedBy('name', 'asc'),
  }),
  'sort by updated_at': () => ({
    sort: sortedBy('updatedAt', 'desc'),
  }),
  'sort by size, property': () => ({ sort: bySize, properties: { os_distro: 'alpine' } }),
  'deep marker': () => ({ marker: deep }),
  'random marker': (round) => ({ marker: populationImage(20 * ((round * 7919) % Math.floor(count / 20)) + 7).id }),
  'deep marker, sort by size': () => ({ marker: deep, sort: bySize }),
  'visibility public': () => ({ visibility: 'public' }),
  'visibility shared': () => ({ visibility: 'shared' }),
  'status queued (none)': () => ({ statuses: ['queued'] }),
  'by checksum': (round) => ({ checksum: populationImage(20 * round + 7).checksum ?? '' }),
  'by disk_format': () => ({ diskFormats: ['vmdk'] }),
  'sort by status': () => ({
    sort: sortedBy('status', 'asc'),
  }),
}

try {
  await (await SqliteCatalog.open({ path })).close()
  const began = performance.now()
  populate(path, count)
  console.log(`populated ${count} images in ${((performance.now() - began) / 1000).toFixed(1)} s`)
  const catalog = await SqliteCatalog.open({ path })
  console.log('list of 25, µs'.padEnd(34), 'member: median    p99    CPU     admin: median    p99    CPU')
  for (const [name, query] of Object.entries(kinds)) {
    const cells: string[] = []
    for (const viewer of [{ projectId: DEMO }, { all: true, projectId: DEMO }] as const) {
      const times: number[] = []
      const cpuBefore = process.threadCpuUsage()
      for (let round = 0; round < ROUNDS; round += 1) {
        const full = { viewer, limit: 25, ...query(round) }
        const from = performance.now()
        await catalog.images.list(full)
        times.push((performance.now() - from) * 1000)
      }
      const { user, system } = process.threadCpuUsage(cpuBefore)
      times.sort((a, b) => a - b)
      const at = (share: number) => (times[Math.floor(times.length * share)] ?? 0).toFixed(0).padStart(7)
      cells.push(at(0.5).padStart(15) + at(0.99) + ((user + system) / ROUNDS).toFixed(0).padStart(7))
    }
    console.log(name.padEnd(34), cells.join(''))
  }
  for (const writers of [1, 16]) {
    const each = 800 / writers
    const from = performance.now()
    await Promise.all(
      Array.from({ length: writers }, async (_, writer) => {
        for (let i = 0; i < each; i += 1) {
          const image = populationImage(count + 1 + writers * 1_000_000 + writer * each + i)
          await catalog.write((tx) => tx.images.create({ ...image, createdAt: Date.now(), updatedAt: Date.now() }))
        }
      }),
    )
    const perSecond = (writers * each) / ((performance.now() - from) / 1000)
    console.log(`create, ${writers} at once`.padEnd(34), `${perSecond.toFixed(0)} a second, durable, without a journal`)
  }
  await catalog.close()
  console.log(`resident memory ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
