/**
 * node bench/run.ts [--short] [CASE…]: Imprint beside Debian's Glance, restic and borg, each line both in turn on this machine,
 * medians of five. A ratio above 1 is in Imprint's favour. Needs root on Debian.
 */
import { cpus, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { noDebianCloud } from '../test/peers/debian-cloud.ts'
import { installPackages } from '../test/peers/packages.ts'
import { fullSizes, smokeSizes } from './glance/bench-case.ts'
import { cases } from './glance/cases.ts'
import { startBoth } from './glance/start-both.ts'
import { heading, reached, tableLine } from './glance/table.ts'

const { values, positionals } = parseArgs({ options: { short: { type: 'boolean' } }, allowPositionals: true })
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

const bench = await startBoth(values.short ? smokeSizes : fullSizes)
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
