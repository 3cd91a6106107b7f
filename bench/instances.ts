/**
 * Many instances of one image at once, from the request to the first line of userland of the last one; beside it the same machines started by
 * hand, at once, on overlays of the raw file: what the boots alone take of this host. Also what each instance takes of the disk before its
 * guest writes. The first start of an image is recorded and done before, as it is for every image but a new one (`--first`: not).
 *
 *   node bench/instances.ts [--count 10] [--rounds 5] [--disk disk.raw] [--memory 128] [--first]
 *
 * Without a disk the tiny guest of the tests is started. In emulation the processors are what is waited for: the ratio says
 * what all of Imprint costs beside that.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { openAsBlob } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { ImageRequests } from '../test/durability/image-requests.ts'
import { adminToken, startMortal } from '../test/durability/mortal-service.ts'
import { endMachines } from '../test/fixtures/guest/end-machines.ts'
import { tinyGuest } from '../test/fixtures/guest/tiny-guest.ts'
import { must } from '../test/peers/command.ts'
import { measured } from './glance/bench-case.ts'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '5' },
    disk: { type: 'string' },
    memory: { type: 'string', default: '128' },
    first: { type: 'boolean', default: false },
  },
})
const [count, rounds, memoryMib] = [values.count, values.rounds, values.memory].map(Number) as [number, number, number]
const FIRST_LINE = /^ready|Welcome to|TINY-READY|systemd\[1\]/m
const LOOK_AGAIN_MS = 20

const folder = await mkdtemp(join(tmpdir(), 'imprint-instances-'))
const disk = values.disk ?? (await tinyGuest())
const service = await startMortal(folder, {
  IMPRINT_QUOTA_INSTANCES: '-1',
  IMPRINT_QUOTA_CORES: '-1',
  IMPRINT_QUOTA_RAM: '-1',
})
const requests = new ImageRequests(service.address, await adminToken(service))
const machines = join(folder, 'data/machines')
try {
  await requests.json('POST', '/compute/v2.1/flavors', {
    flavor: { id: 'bench', name: 'bench', ram: memoryMib, vcpus: 1, disk: 0 },
  })
  const imageId = randomUUID()
  await requests.create(imageId, 'bench', 'raw')
  await requests.send(imageId, await openAsBlob(disk))
  if (!values.first) {
    await startAll(imageId, 1)
    await removeAll()
  }
  const [ours, alone, extra]: number[][] = [[], [], []]
  for (let round = 1; round <= rounds; round += 1) {
    alone!.push(await byHand())
    ours!.push(await startAll(imageId, count))
    extra!.push(...(await diskBytes()))
    await removeAll()
    console.log(`round ${round}: Imprint ${ours!.at(-1)!.toFixed(2)} s, by hand ${alone!.at(-1)!.toFixed(2)} s`)
  }
  const [mine, theirs] = [measured(ours!).median, measured(alone!).median]
  console.log(`${count} instances at once, medians of ${rounds}:`)
  console.log(`  ${mine.toFixed(2)} s, by hand ${theirs.toFixed(2)} s: ${(mine / theirs).toFixed(2)} times (at most 1.3)`)
  console.log(`  on the disk of each before it writes: ${(Math.max(...extra!) / 1e6).toFixed(2)} MB at most (at most 1)`)
} finally {
  await endMachines(join(folder, 'data'))
  await service.stop()
  await rm(folder, { recursive: true, force: true })
}

async function isUp(file: string): Promise<boolean> {
  return FIRST_LINE.test(await readFile(file, 'latin1').catch(() => ''))
}

/** @returns seconds until all logs have the line */
async function untilUp(begun: number, logs: () => Promise<readonly string[]>, wanted: number): Promise<number> {
  const up = new Set<string>()
  while (up.size < wanted) {
    for (const log of await logs()) if (!up.has(log) && (await isUp(log))) up.add(log)
    await pause(LOOK_AGAIN_MS)
  }
  return (performance.now() - begun) / 1000
}

async function startAll(imageId: string, wanted: number): Promise<number> {
  const begun = performance.now()
  const server = { name: 'many', imageRef: imageId, flavorRef: 'bench', min_count: wanted, max_count: wanted }
  await requests.json('POST', '/compute/v2.1/servers', { server })
  const logs = async () =>
    (await readdir(machines, { recursive: true }))
      .filter((name) => name.endsWith('/console.log'))
      .map((name) => join(machines, name))
  return untilUp(begun, logs, wanted)
}

async function removeAll(): Promise<void> {
  const list = async () =>
    (await requests.json<{ readonly servers: readonly { readonly id: string }[] }>('GET', '/compute/v2.1/servers')).servers
  for (const { id } of await list()) await requests.json('DELETE', `/compute/v2.1/servers/${id}`)
  while ((await list()).length > 0) await pause(LOOK_AGAIN_MS)
}

/** Of each machine's folder, what it takes of the disk. */
async function diskBytes(): Promise<readonly number[]> {
  const folders = (await readdir(machines)).filter((name) => /^[0-9a-f-]{36}$/.test(name))
  return Promise.all(
    folders.map(async (name) => {
      const files = await readdir(join(machines, name), { recursive: true })
      const stats = await Promise.all(files.map((file) => stat(join(machines, name, file))))
      return stats.reduce((sum, { blocks }) => sum + blocks * 512, 0)
    }),
  )
}

/** The same machines, without anything of Imprint. */
async function byHand(): Promise<number> {
  const place = join(folder, 'by-hand')
  await mkdir(place)
  const started: ChildProcess[] = []
  const begun = performance.now()
  try {
    const names = Array.from({ length: count }, (_, index) => join(place, String(index)))
    for (const name of names) {
      await must(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', disk, '-F', 'raw', `${name}.qcow2`])
      started.push(spawn('qemu-system-x86_64', argumentsOf(name), { stdio: 'ignore' }))
    }
    return await untilUp(begun, async () => names.map((name) => `${name}.log`), count)
  } finally {
    const ended = started.map((machine) => new Promise((end) => machine.once('exit', end)))
    for (const machine of started) machine.kill('SIGKILL')
    await Promise.all(ended)
    await rm(place, { recursive: true })
  }
}

function argumentsOf(name: string): readonly string[] {
  return [
    ['-machine', 'pc', '-accel', 'tcg', '-cpu', 'max', '-smp', '1', '-m', String(memoryMib)],
    ['-nodefaults', '-no-user-config', '-display', 'none', '-boot', 'strict=on'],
    ['-blockdev', `driver=qcow2,node-name=disk,file.driver=file,file.filename=${name}.qcow2`],
    ['-device', 'virtio-blk-pci,drive=disk,bootindex=1'],
    ['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net'],
    ['-chardev', `file,id=serial,path=${name}.log`, '-serial', 'chardev:serial'],
  ].flat()
}
