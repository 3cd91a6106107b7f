/**
 * npm test [--unit | --e2e] [FILE…]: installs what the tests need, runs them, tells which files took longest, and ends with the
 * line `N passed, N failed, N skipped`. Unit tests run side by side; those of the whole service at most two at a time, and
 * those that start peers or hold thousands of connections one by one.
 */
import { globSync } from 'node:fs'
import { cpus } from 'node:os'
import { relative, resolve } from 'node:path'
import { run } from 'node:test'
import { parseArgs } from 'node:util'
import { installPackages } from '../test/peers/packages.ts'
import { longestFirst } from './test-order.ts'
import { report, type TimedFile } from './test-report.ts'

const root = resolve(import.meta.dirname, '..')
process.chdir(root)
const { values: only, positionals: named } = parseArgs({
  options: { unit: { type: 'boolean' }, e2e: { type: 'boolean' } },
  allowPositionals: true,
})

const FILE_TIMEOUT_MS = 25 * 60_000 // a hung peer must not hold up the rest for ever
const SLOWEST = 25
const processors = cpus().length

const files = named.length
  ? named.map((name) => relative(root, resolve(process.env.INIT_CWD ?? root, name)))
  : globSync('{src,test,scripts,bench}/**/*.test.ts').sort()
const within = (...folders: string[]) => files.filter((file) => folders.some((folder) => file.startsWith(`${folder}/`)))
const whole = within('test/e2e', 'test/durability')
/** These start peers that take all of a machine, measure, or hold thousands of connections: one at a time. */
const alone = within('test/differential', 'test/load', 'bench')
const unit = files.filter((file) => !whole.includes(file) && !alone.includes(file))
const phases = [
  { title: 'Unit tests', files: only.e2e ? [] : unit, concurrency: processors },
  { title: 'The whole service', files: only.unit ? [] : whole, concurrency: Math.min(2, processors) },
  { title: 'One at a time', files: only.unit ? [] : alone, concurrency: 1 },
]

await installPackages(console.log)
const interrupted = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => interrupted.abort())
const counts = { passed: 0, failed: 0, skipped: 0 }
const skips: string[] = []
const times: string[] = []
const timed: TimedFile[] = []
for (const phase of phases.filter((each) => each.files.length > 0)) {
  console.log(`\n${phase.title}: ${phase.files.length} files`)
  const begun = performance.now()
  const events = run({
    files: longestFirst(phase.files),
    concurrency: phase.concurrency,
    timeout: FILE_TIMEOUT_MS,
    cwd: root,
    signal: interrupted.signal,
  })
  const seen = await report(events, console.log)
  counts.passed += seen.passed
  counts.failed += seen.failed
  counts.skipped += seen.skips.length
  skips.push(...seen.skips)
  timed.push(...seen.files)
  times.push(`${phase.title}: ${((performance.now() - begun) / 60_000).toFixed(1)} minutes`)
}
if (timed.length > SLOWEST) {
  const slowest = timed.toSorted((one, other) => other.seconds - one.seconds).slice(0, SLOWEST)
  const rows = slowest.map(({ name, seconds }) => `${seconds.toFixed(1).padStart(7)} s  ${name}`)
  console.log(`\nThe slowest files:\n${rows.join('\n')}\n\n${times.join('\n')}`)
}
if (skips.length > 0) console.log(`\nSkipped:\n${skips.map((skip) => `  ${skip}`).join('\n')}`)
console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0
