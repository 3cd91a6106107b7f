/**
 * Fuzzes the parsers of disk formats and of what they come in, until it is stopped: `scripts/node24 develop scripts/fuzz.ts [NAME…]`.
 * It goes round the targets, all of them or those that are named, with fresh mutants each time; it prints the seed of each round, and
 * ends with status 1 and the file of a mutant at the first find. `--minutes 60` ends it, `--seed 7 --first 4711 --runs 1` repeats one.
 */
import { globSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { described, fuzzInThread } from '../test/fixtures/fuzz/fuzz.ts'
import type { FuzzTarget } from '../test/fixtures/fuzz/target.ts'

const root = resolve(import.meta.dirname, '..')
const { values, positionals } = parseArgs({
  options: {
    minutes: { type: 'string' },
    seed: { type: 'string' },
    first: { type: 'string', default: '0' },
    runs: { type: 'string', default: '200000' },
  },
  allowPositionals: true,
})
const until = values.minutes === undefined ? Number.POSITIVE_INFINITY : Date.now() + Number(values.minutes) * 60_000

const urls = globSync('src/**/fuzz.suite.ts', { cwd: root }).map((path) => pathToFileURL(resolve(root, path)).href)
const all: { readonly url: string; readonly name: string }[] = []
for (const url of urls) {
  const { targets } = (await import(url)) as { readonly targets: readonly FuzzTarget[] }
  all.push(...targets.map(({ name }) => ({ url, name })))
}
const unknown = positionals.find((name) => all.every((target) => target.name !== name))
if (unknown !== undefined) {
  console.error(`no target is called ${unknown}; there are ${all.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}
const chosen = positionals.length === 0 ? all : all.filter(({ name }) => positionals.includes(name))

let seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
do {
  for (const { url, name } of chosen) {
    if (Date.now() >= until) break
    const began = process.cpuUsage()
    const { mutants, taken, largestAllocation, find } = await fuzzInThread({
      url,
      name,
      seed,
      first: Number(values.first),
      runs: Number(values.runs),
    })
    const { user, system } = process.cpuUsage(began)
    const rate = Math.round((mutants * 1e6) / (user + system))
    console.log(
      `${name}: seed ${seed}, ${mutants} mutants, ${taken} taken, ${rate} a CPU second, largest allocation ${largestAllocation} bytes`,
    )
    if (!find) continue
    console.error(await described(name, seed, find))
    process.exit(1)
  }
  seed += 1
} while (values.seed === undefined && Date.now() < until)
