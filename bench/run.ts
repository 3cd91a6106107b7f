/**
 * node bench/run.ts [--short] [--set SIZE=NUMBER]… [CASE…]: Imprint beside Debian's Glance, restic and borg, each line both in turn on this machine,
 * medians of five. A ratio above 1 is in Imprint's favour. Needs root on Debian.
 */
import { cpus, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { noDebianCloud } from '../test/peers/debian-cloud.ts'
import { installPackages } from '../test/peers/packages.ts'
import { fullSizes, type Sizes, smokeSizes } from './glance/bench-case.ts'
import { cases } from './glance/cases.ts'
import { startBoth } from './glance/start-both.ts'
import { heading, reached, tableLine } from './glance/table.ts'

const { values, positionals } = parseArgs({
  options: { short: { type: 'boolean' }, set: { type: 'string', multiple: true } },
  allowPositionals: true,
})
const unknown = positionals.filter((name) => !cases.some((each) => each.name === name))
if (unknown.length > 0) {
  console.error(
    `no case ${unknown.join(', ')}; there are:\n${cases.map(({ name, summary }) => `  ${name}: ${summary}`).join('\n')}`,
  )
  process.exit(2)
}
await installPackages(console.log)
const missing = noDebianCloud()
if (missing) throw new Error(missing)

const bench = await startBoth({ ...(values.short ? smokeSizes : fullSizes), ...sizesFrom(values.set ?? []) })
try {
  console.log(`${new Date().toISOString()}  ${cpus().length} × ${cpus()[0]?.model}, ${Math.round(totalmem() / 2 ** 30)} GiB`)
  for (const { name, summary, run } of cases.filter((each) => positionals.length === 0 || positionals.includes(each.name))) {
    console.log(`\n${name}: ${summary}\n${heading}`)
    for await (const row of run(bench)) {
      console.log(tableLine(row))
      if (reached(row) === false && !values.short) process.exitCode = 1
    }
  }
} finally {
  await bench.stop()
}

/** `imageBytes=1048576` → that size; `populations=100,1000` → both. */
function sizesFrom(given: readonly string[]): Partial<Sizes> {
  const entries = given.map((text) => {
    const [name = '', value = ''] = text.split('=')
    if (!(name in fullSizes)) throw new Error(`no size ${name}; there are ${Object.keys(fullSizes).join(', ')}`)
    const numbers = value.split(',').map(Number)
    if (numbers.some((number) => !Number.isSafeInteger(number) || number < 1)) throw new Error(`${name} takes a number above 0`)
    return [name, name === 'populations' ? numbers : numbers[0]]
  })
  return Object.fromEntries(entries)
}
