/**
 * What refusing costs: every case of the catalogue of hostile files, looked at as an upload or an import is, one after the other.
 * Prints the slowest and the ones for which memory grew most, by the resident size at its highest, against 2 s and 64 MiB.
 *
 *   node --expose-gc bench/hostile.ts
 *
 * Linux only: the highest resident size is set back by /proc/self/clear_refs.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { isServiceError } from '../src/base/errors.ts'
import { checked } from '../src/disk/block/checked.ts'
import { examination } from '../src/images/examine/examination.ts'
import { hostileCases } from '../test/fixtures/disk/hostile.ts'
import { hostileContainers, useContainer } from '../test/fixtures/disk/hostile-containers.ts'

const MiB = 2 ** 20
const MUST_MS = 2000
const MUST_BYTES = 64 * MiB
const SHOWN = 8

interface Measured {
  readonly what: string
  /** Of processors: the machine may have other work. */
  readonly ms: number
  readonly grownBytes: number
}
const kibOf = (field: string): number =>
  Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024

async function measured(what: string, use: () => Promise<unknown>): Promise<Measured> {
  globalThis.gc?.()
  writeFileSync('/proc/self/clear_refs', '5')
  const before = kibOf('VmRSS')
  const began = process.cpuUsage()
  try {
    await use()
  } catch (error) {
    if (!isServiceError(error)) throw error
  }
  const { user, system } = process.cpuUsage(began)
  const ms = (user + system) / 1000
  return { what, ms, grownBytes: Math.max(0, kibOf('VmHWM') - before) }
}

const cases: readonly { readonly what: string; readonly use: () => Promise<unknown> }[] = [
  ...hostileCases().map(({ id, name, declared, file }) => ({
    what: `${id} ${name}`,
    use: () => examination(checked(file, 'file'), declared),
  })),
  ...hostileContainers().map((each) => ({ what: `${each.id} ${each.name}`, use: () => useContainer(each) })),
]
for (const { use } of cases.slice(0, 20)) await measured('', use) // code that runs the first time is compiled
const all: Measured[] = []
for (const { what, use } of cases) all.push(await measured(what, use))

const line = ({ what, ms, grownBytes }: Measured) =>
  `${ms.toFixed(0).padStart(7)} ms ${(grownBytes / MiB).toFixed(1).padStart(7)} MiB  ${what}`
console.log(`${all.length} cases. The slowest (at most ${MUST_MS} ms):`)
for (const each of all.toSorted((a, b) => b.ms - a.ms).slice(0, SHOWN)) console.log(line(each))
console.log(`The largest (at most ${MUST_BYTES / MiB} MiB):`)
for (const each of all.toSorted((a, b) => b.grownBytes - a.grownBytes).slice(0, SHOWN)) console.log(line(each))
const beyond = all.filter(({ ms, grownBytes }) => ms > MUST_MS || grownBytes > MUST_BYTES)
console.log(`${beyond.length} beyond a limit`)
process.exitCode = beyond.length > 0 ? 1 : 0
