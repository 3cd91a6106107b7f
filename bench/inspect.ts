/**
 * Looking into a disk: time, bytes read and packages found, in one process, warm; and `virt-inspector` of guestfs-tools on the same file in the
 * same run, where it is installed. Prints medians, and their ratio: above 1 is in our favour.
 *
 *   node bench/inspect.ts DISK [--rounds N]
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { MiB } from '../src/base/units.ts'
import { openDisk } from '../src/cli/disk-file/open-disk.ts'
import { placesOf } from '../src/cli/disk-file/open-file.ts'
import { readAnatomy } from '../src/disk/guest/anatomy.ts'
import { missingTool } from '../test/peers/command.ts'

const { values, positionals } = parseArgs({ options: { rounds: { type: 'string', default: '5' } }, allowPositionals: true })
const [source] = positionals
if (source === undefined) throw new Error('which disk?')
const rounds = Number(values.rounds)
const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!
const { signal } = new AbortController()

async function ours() {
  const begun = performance.now()
  const openFile = placesOf({ spoolBytes: undefined, signal, onProgress: () => {} })
  const { disk } = await openDisk({ source: source! }, openFile)
  let [reads, bytes] = [0, 0]
  const counted: typeof disk = {
    ...disk,
    read(offset, length, into) {
      reads += 1
      bytes += length
      return disk.read(offset, length, into)
    },
  }
  const { systems } = await readAnatomy(counted)
  await disk.close()
  const packages = systems.reduce((sum, { software }) => sum + (software?.packages.length ?? 0), 0)
  return { ms: performance.now() - begun, reads, bytes, packages }
}

async function theirs() {
  const begun = performance.now()
  const child = spawn('virt-inspector', ['--format=raw', '-a', source!], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    text += piece
  })
  await once(child, 'close')
  return { ms: performance.now() - begun, packages: text.split('<application>').length - 1 }
}

const withTheirs = missingTool('virt-inspector') === false
const mine: Awaited<ReturnType<typeof ours>>[] = []
const others: Awaited<ReturnType<typeof theirs>>[] = []
for (let round = 0; round < rounds; round += 1) {
  mine.push(await ours())
  if (withTheirs) others.push(await theirs())
}
const [first] = mine
console.log(`${process.version}, ${rounds} rounds`)
console.log(
  `ours: first ${first!.ms.toFixed(0)} ms, median ${median(mine.map(({ ms }) => ms)).toFixed(0)} ms; ${(first!.bytes / MiB).toFixed(1)} MiB in ${first!.reads} reads; ${first!.packages} packages`,
)
if (withTheirs) {
  const ms = median(others.map((each) => each.ms))
  console.log(
    `virt-inspector: ${ms.toFixed(0)} ms, ${others[0]!.packages} packages: ${(ms / median(mine.map((each) => each.ms))).toFixed(1)} times as long`,
  )
} else console.log('virt-inspector is not installed')
