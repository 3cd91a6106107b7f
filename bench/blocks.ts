/**
 * Blocks over a unix socket: Imprint's NBD beside `qemu-nbd` on a zstd qcow2 and `nbdkit file` on the raw file, the same disk, in
 * turn. Medians and ratios; above 1 is in Imprint's favour.
 *
 *   node bench/blocks.ts [disk.raw] [rounds]
 *
 * Cold: nothing of the image is in Imprint's memory, but the service has run for a while (it has served another image). Warm: the
 * same reads again, small ones five times over, as they would be done too soon to tell; of the peers as well. What all three read from is in the page cache of the kernel. Without a disk, one of 1 GiB with 384 MiB of data is
 * made.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { type ImprintService, startImprint } from '../test/e2e/image-service.ts'
import { patterned, writeSource } from '../test/fixtures/disk/disks.ts'
import { run } from '../test/fixtures/disk/tools.ts'
import { startDaemon } from '../test/peers/daemon.ts'
import { measured, type Row } from './glance/bench-case.ts'
import { createImage, putFile } from './glance/image-client.ts'
import { heading, tableLine } from './glance/table.ts'

const MiB = 2 ** 20
const execute = promisify(execFile)
const [given, rounds = '5'] = process.argv.slice(2)

interface Seconds {
  readonly cold: number
  readonly warm: number
}
interface Load {
  readonly what: string
  readonly unit: Row['unit']
  readonly args: readonly string[]
  /** How often the reads are done again: that many times as many. */
  readonly again: number
  /** From the seconds that it took. */
  readonly value: (seconds: number, reads: number) => number
  readonly cold: { readonly qemu: number }
  readonly warm: { readonly qemu?: number; readonly nbdkit?: number }
}
const AGAIN = 5
/** Each read is of another chunk, and behind the end come the same ones again. */
const STRIDE_BYTES = 256 * 1024
const random = (depth: number) => ({
  args: ['-d', String(depth), '-s', '4096', '-S', String(STRIDE_BYTES)],
  again: AGAIN,
  value: (seconds: number, reads: number) => reads / seconds,
})
const loads: readonly Load[] = [
  { what: '4 KiB, depth 1', unit: '/s', ...random(1), cold: { qemu: 0.6 }, warm: {} },
  {
    what: '4 KiB, depth 16',
    unit: '/s',
    ...random(16),
    cold: { qemu: 1 },
    warm: { qemu: 2, nbdkit: 0.5 },
  },
  {
    what: '1 MiB in order, depth 4',
    unit: 's',
    args: ['-d', '4', '-s', String(MiB)],
    again: 1,
    value: (s) => s,
    cold: { qemu: 1 },
    warm: { nbdkit: 0.8 },
  },
]

const folder = await mkdtemp(join(tmpdir(), 'imprint-blocks-'))
const path = (name: string) => join(folder, name)
try {
  const disk = given ?? (await madeDisk('disk.raw', 0))
  const other = await madeDisk('other.raw', 1000)
  const { 'virtual-size': diskBytes } = JSON.parse(await run('qemu-img', 'info', '-f', 'raw', '--output=json', disk))
  await run('qemu-img', 'convert', '-f', 'raw', '-c', '-O', 'qcow2', '-o', 'compression_type=zstd', disk, path('disk.qcow2'))
  const dataFolder = path('data')
  const images = await withImprint(dataFolder, (service) => Promise.all([disk, other].map((file) => putImage(service, file))))
  console.log(heading)
  for (const load of loads) {
    const seconds = { qemu: [] as Seconds[], nbdkit: [] as Seconds[], imprint: [] as Seconds[] }
    const count = load.unit === 's' ? Math.floor(diskBytes / MiB) : Math.floor(diskBytes / STRIDE_BYTES)
    const both = async (socket: string): Promise<Seconds> => ({
      cold: await secondsOf(socket, load.args, count),
      warm: await secondsOf(socket, load.args, count * load.again),
    })
    for (let round = 0; round < Number(rounds); round += 1) {
      const qemu = ['-r', '-t', '-f', 'qcow2', '-k', path('qemu.sock'), path('disk.qcow2')]
      seconds.qemu.push(await ofPeer('qemu-nbd', qemu, 'qemu', both))
      seconds.nbdkit.push(await ofPeer('nbdkit', ['-f', '-r', '-U', path('nbdkit.sock'), 'file', disk], 'nbdkit', both))
      await withImprint(dataFolder, async (service) => {
        const [mine, others] = await Promise.all(images.map((image) => exportOf(service, image)))
        for (const each of [...loads, ...loads]) await secondsOf(others!, each.args, each.unit === 's' ? 1024 : 4096)
        seconds.imprint.push(await both(mine!))
      })
    }
    const line = (when: keyof Seconds, peer: 'qemu' | 'nbdkit', must?: number) => {
      const values = (all: readonly Seconds[]) =>
        measured(all.map((one) => load.value(one[when], when === 'warm' ? count * load.again : count)))
      console.log(
        tableLine({
          what: `${load.what}, ${when}`,
          unit: load.unit,
          imprint: values(seconds.imprint),
          peer: { name: { qemu: 'qemu-nbd', nbdkit: 'nbdkit' }[peer], ...values(seconds[peer]) },
          ...(must === undefined ? {} : { must }),
        }),
      )
    }
    line('cold', 'qemu', load.cold.qemu)
    line('warm', 'qemu', load.warm.qemu)
    line('warm', 'nbdkit', load.warm.nbdkit)
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}

async function madeDisk(name: string, seed: number): Promise<string> {
  const pieces = Array.from({ length: 48 }, (_, index) => ({
    offset: index * 20 * MiB + index * 4096,
    bytes: patterned(8 * MiB, seed + index, index % 2 ? 'text' : 'random'),
  }))
  await writeSource(memorySource(1024 * MiB, pieces), path(name))
  return path(name)
}

async function withImprint<T>(dataFolder: string, work: (service: ImprintService) => Promise<T>): Promise<T> {
  const service = await startImprint({
    dataFolder,
    settings: { IMPRINT_MEMORY: '3G' },
  })
  try {
    return await work(service)
  } finally {
    await service.stop()
  }
}

async function putImage(service: ImprintService, file: string): Promise<string> {
  const target = { imageUrl: service.imageUrl, token: service.cast.member.token }
  const image = await createImage(target)
  await putFile(target, image, file)
  return image
}

async function exportOf({ address, cast }: ImprintService, image: string): Promise<string> {
  const response = await fetch(`${address}/v1/exports`, {
    method: 'POST',
    headers: { 'x-auth-token': cast.member.token, 'content-type': 'application/json' },
    body: JSON.stringify({ image }),
  })
  if (response.status !== 201) throw new Error(`export: ${response.status} ${await response.text()}`)
  return ((await response.json()) as { uris: { unix: string } }).uris.unix
}

async function ofPeer(
  program: string,
  args: readonly string[],
  socket: string,
  both: (uri: string) => Promise<Seconds>,
): Promise<Seconds> {
  const uri = `nbd+unix:///?socket=${path(`${socket}.sock`)}`
  await rm(path(`${socket}.sock`), { force: true }) // of the round before
  const ready = () =>
    run('nbdinfo', '--size', uri).then(
      () => true,
      () => false,
    )
  const daemon = await startDaemon({ name: program, folder, command: [program, ...args], env: {}, ready })
  try {
    return await both(uri)
  } finally {
    await daemon.stop()
  }
}

async function secondsOf(uri: string, args: readonly string[], count: number): Promise<number> {
  const { stdout } = await execute('qemu-img', ['bench', '-f', 'raw', '-t', 'none', ...args, '-c', String(count), uri])
  const seconds = /completed in ([\d.]+) seconds/.exec(stdout)?.[1]
  if (!seconds) throw new Error(`qemu-img bench said: ${stdout}`)
  return Number(seconds)
}
