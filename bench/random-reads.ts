/**
 * Reads of 4 KiB all over a qcow2 file, through `open` in this process beside `qemu-nbd` and its own client, the same file and the same
 * places, in turn. Medians and their ratio; above 1 is in Imprint's favour, and 0.7 is what must be.
 *
 *   node bench/random-reads.ts [rounds] [variant…]
 *
 * The disk has 512 MiB of data, half noise, half text, all of it in the page cache of the kernel.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFileSource } from '../src/disk/block/file-source.ts'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { openImage } from '../src/disk/formats/index.ts'
import { patterned, writeSource } from '../test/fixtures/disk/disks.ts'
import { run } from '../test/fixtures/disk/tools.ts'
import { startDaemon } from '../test/peers/daemon.ts'
import { measured } from './glance/bench-case.ts'
import { heading, tableLine } from './glance/table.ts'

const MiB = 2 ** 20
const DISK_BYTES = 512 * MiB
const READ_BYTES = 4096
/** Odd in reads, so that it comes to all of them before it comes to one again; and far, so that the next is of another table. */
const STRIDE_BYTES = 40_009 * READ_BYTES
const LEAST_RATIO = 0.7
const [rounds = '5', ...wanted] = process.argv.slice(2)
const variants = [
  { name: 'plain', options: [], reads: 40_000 },
  { name: 'subclusters', options: ['-o', 'extended_l2=on,cluster_size=128k'], reads: 40_000 },
  { name: 'zstd', options: ['-c', '-o', 'compression_type=zstd'], reads: 10_000 },
  { name: 'zlib', options: ['-c'], reads: 5_000 },
].filter(({ name }) => wanted.length === 0 || wanted.includes(name))

const folder = await mkdtemp(join(tmpdir(), 'imprint-reads-'))
const path = (name: string) => join(folder, name)
try {
  const pieces = Array.from({ length: DISK_BYTES / MiB }, (_, index) => ({
    offset: index * MiB,
    bytes: patterned(MiB, index, index % 2 ? 'text' : 'random'),
  }))
  await writeSource(memorySource(DISK_BYTES, pieces), path('raw'))
  console.log(heading)
  for (const { name, options, reads } of variants) {
    const file = path(`${name}.qcow2`)
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', ...options, path('raw'), file)
    for (const depth of [1, 16]) {
      const [mine, theirs]: [number[], number[]] = [[], []]
      for (let round = 0; round < Number(rounds); round += 1) {
        mine.push(reads / (await throughOpen(file, depth, reads)))
        theirs.push(reads / (await throughQemu(file, depth, reads)))
      }
      const peer = { name: 'qemu-nbd', ...measured(theirs) }
      console.log(
        tableLine({ what: `${name}, 4 KiB, depth ${depth}`, unit: '/s', imprint: measured(mine), peer, must: LEAST_RATIO }),
      )
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}

/** @returns seconds, of a disk that was opened for this and read for a while */
async function throughOpen(path: string, depth: number, reads: number): Promise<number> {
  const disk = await openImage('qcow2', await openFileSource(path))
  const all = async (count: number) => {
    let next = 0
    const work = async () => {
      while (next < count) {
        const at = (next * STRIDE_BYTES) % (DISK_BYTES - READ_BYTES)
        next += 1
        await disk.read(at - (at % READ_BYTES), READ_BYTES)
      }
    }
    await Promise.all(Array.from({ length: depth }, work))
  }
  await all(Math.ceil(reads / 10))
  const from = process.hrtime.bigint()
  await all(reads)
  const seconds = Number(process.hrtime.bigint() - from) / 1e9
  await disk.close()
  return seconds
}

async function throughQemu(file: string, depth: number, reads: number): Promise<number> {
  const socket = path('qemu.sock')
  await rm(socket, { force: true }) // of the round before
  const uri = `nbd+unix:///?socket=${socket}`
  const ready = () =>
    run('qemu-img', 'info', '-f', 'raw', uri).then(
      () => true,
      () => false,
    )
  const command = ['qemu-nbd', '-r', '-t', '-f', 'qcow2', '-k', socket, file] as const
  const daemon = await startDaemon({ name: 'qemu-nbd', folder, command, env: {}, ready })
  try {
    const bench = async (count: number) => {
      const args = ['-f', 'raw', '-t', 'none', '-d', depth, '-s', READ_BYTES, '-S', STRIDE_BYTES, '-c', count].map(String)
      const seconds = /completed in ([\d.]+) seconds/.exec(await run('qemu-img', 'bench', ...args, uri))?.[1]
      if (!seconds) throw new Error('qemu-img bench did not say how long it took')
      return Number(seconds)
    }
    await bench(Math.ceil(reads / 10))
    return await bench(reads)
  } finally {
    await daemon.stop()
  }
}
