/**
 * `imprint convert` beside `qemu-img convert`, command against command, same disk, in turn. Prints medians of wall time and of processor
 * time, and their ratio: above 1 is in our favour.
 *
 *   node bench/convert.ts [--disk FILE] [--rounds N] [PAIR…]       pairs as raw-qcow2, qcow2-raw (default: every format, from raw and to raw)
 *
 * Both are run twice: with `--no-sync` beside qemu-img as it comes, when nothing need be on the disk at the end; and as we come beside
 * `-t writeback`, which waits for that as we do. Without a disk, one of 2 GiB with 700 MiB of data is made: half noise, half text, in 64 stretches.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { GiB, MiB } from '../src/base/units.ts'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { formats } from '../src/disk/formats/index.ts'
import { patterned, writeSource } from '../test/fixtures/disk/disks.ts'
import { run } from '../test/fixtures/disk/tools.ts'

const { values, positionals } = parseArgs({
  options: { disk: { type: 'string' }, rounds: { type: 'string', default: '5' } },
  allowPositionals: true,
})
const program = new URL('../bin/imprint', import.meta.url).pathname
const nameForQemu = (format: string) => (format === 'vhd' ? 'vpc' : format)
const writable = formats.filter(({ name, writers }) => writers.length > 0 && name !== 'raw').map(({ name }) => name)
const pairs = positionals.length > 0 ? positionals : writable.flatMap((name) => [`raw-${name}`, `${name}-raw`])

interface Took {
  readonly wall: number
  /** Of processors, user and system. */
  readonly work: number
}

/** Seconds. GNU time says what a child took, and its children. */
async function timed(words: readonly string[]): Promise<Took> {
  const child = spawn('/usr/bin/time', ['-f', '%e %U %S', ...words], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const [code] = await once(child, 'close')
  const [wall = Number.NaN, user = 0, system = 0] = said.trim().split('\n').at(-1)!.split(' ').map(Number)
  if (code !== 0) throw new Error(`${words.join(' ')}: ${said}`)
  return { wall, work: user + system }
}

const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0

const folder = await mkdtemp(join(tmpdir(), 'imprint-bench-'))
const path = (name: string) => join(folder, name)
try {
  const raw = values.disk ?? path('disk.raw')
  if (!values.disk) {
    const pieces = Array.from({ length: 64 }, (_, index) => ({
      offset: index * 31 * MiB + index * 4096,
      bytes: patterned(11 * MiB, index, index % 2 ? 'text' : 'random'),
    }))
    await writeSource(memorySource(2 * GiB, pieces), raw)
  }
  console.log(`${process.version}, ${availableParallelism()} processors, ${values.rounds} rounds, medians in seconds`)
  console.log('pair              --no-sync       qemu-img       ratio    synced          -t writeback   ratio    (wall / work)')
  for (const pair of pairs) {
    const [from = '', to = ''] = pair.split('-')
    const source = from === 'raw' ? raw : path(`source.${from}`)
    if (from !== 'raw') await run('qemu-img', 'convert', '-f', 'raw', '-O', nameForQemu(from), raw, source)
    const theirs = ['qemu-img', 'convert', '-f', nameForQemu(from), '-O', nameForQemu(to)]
    const ours = [program, 'convert', source, path('made'), '--to', to]
    const contenders: readonly (readonly string[])[] = [
      [...ours, '--no-sync'],
      [...theirs, source, path('made')],
      ours,
      [...theirs, '-t', 'writeback', source, path('made')],
    ]
    const took = contenders.map((): Took[] => [])
    for (let round = 0; round < Number(values.rounds); round += 1) {
      for (const [index, words] of contenders.entries()) {
        await rm(path('made'), { force: true })
        took[index]!.push(await timed(words))
      }
    }
    const medians = took.map((each) => ({
      wall: median(each.map(({ wall }) => wall)),
      work: median(each.map(({ work }) => work)),
    }))
    const [mine, plain, synced, flushed] = medians as [Took, Took, Took, Took]
    const cell = ({ wall, work }: Took) => `${wall.toFixed(2)} / ${work.toFixed(2)}`.padEnd(14)
    const ratio = (us: Took, them: Took) => (them.wall / us.wall).toFixed(2).padEnd(7)
    const cells = [cell(mine), cell(plain), ratio(mine, plain), cell(synced), cell(flushed), ratio(synced, flushed)]
    console.log(`${pair.padEnd(16)}  ${cells.join('  ')}`)
    if (from !== 'raw') await rm(source)
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
