/**
 * Onto a disk: `imprint deploy`, onto a disk of other content, over one that holds the image, and over one that holds the version before;
 * beside what people do today, `qemu-img convert` of a qcow2 from the service to a raw file and `dd` of that onto the disk.
 *
 *   node bench/deploy.ts [--disk v1.raw --next v2.raw] [--rounds 5] [--mib 512]
 *
 * As root, with losetup, QEMU and dd. Without disks a made-up one is taken, half of it noise, of which the next version changes a fiftieth.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, open, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { ImageRequests } from '../test/durability/image-requests.ts'
import { adminToken, type MortalService, startMortal } from '../test/durability/mortal-service.ts'
import { missingTool, must } from '../test/peers/command.ts'
import { cast } from '../test/peers/identity-client.ts'
import { measured } from './glance/bench-case.ts'

const MiB = 2 ** 20
const main = resolve(import.meta.dirname, '../src/main.ts')
const { values } = parseArgs({
  options: {
    disk: { type: 'string' },
    next: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    mib: { type: 'string', default: '512' },
  },
})
const lacks = process.getuid?.() !== 0 ? 'needs root' : missingTool('losetup', 'qemu-img', 'dd')
if (lacks) {
  console.log(`skipped: ${lacks}`)
  process.exit(0)
}

const folder = await mkdtemp(join(tmpdir(), 'imprint-deploy-'))
let service: MortalService | undefined
let device = ''
try {
  await measureAll()
} finally {
  if (device) await must(['losetup', '--detach', device])
  await service?.stop()
  await rm(folder, { recursive: true, force: true })
}

async function measureAll(): Promise<void> {
  const [v1, v2] = values.disk && values.next ? [values.disk, values.next] : await madeUp(Number(values.mib))
  service = await startMortal(await mkdtemp(join(folder, 'service-')))
  const requests = new ImageRequests(service.address, await adminToken(service))
  for (const [name, path] of [['v1', v1] as const, ['v2', v2] as const]) {
    await must([process.execPath, main, 'image', 'add', path, '--name', name], { env: user() })
  }
  const { size } = await stat(v1)
  await writeFile(join(folder, 'medium'), '')
  await truncate(join(folder, 'medium'), Math.ceil(size / MiB) * MiB)
  device = (await must(['losetup', '--find', '--show', join(folder, 'medium')])).trim()
  const images = (await requests.list()).filter(({ name }) => name === 'v2')
  const ways: Readonly<Record<string, () => Promise<number>>> = {
    'convert + dd': () => convertAndWrite(requests, images[0]!.id),
    'deploy, other content': async () => {
      await fill()
      return deploy('v2')
    },
    'deploy, unchanged': async () => {
      await deploy('v2')
      return deploy('v2')
    },
    'deploy, next version': async () => {
      await deploy('v1')
      return deploy('v2')
    },
  }
  const seconds = new Map<string, number[]>(Object.keys(ways).map((way) => [way, []]))
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const [way, run] of Object.entries(ways)) seconds.get(way)!.push(await run())
  }
  const peer = measured(seconds.get('convert + dd')!).median
  console.log(`${Math.round(size / MiB)} MiB            s, median   convert + dd ÷ it`)
  for (const [way, some] of seconds) {
    const { median } = measured(some)
    console.log(`${way.padEnd(22)} ${median.toFixed(2).padStart(9)} ${(peer / median).toFixed(2).padStart(19)}`)
  }
}

async function madeUp(mib: number): Promise<readonly [string, string]> {
  const paths = [join(folder, 'v1.raw'), join(folder, 'v2.raw')] as const
  const v1 = Buffer.alloc(mib * MiB)
  for (let at = 0; at < mib; at += 2) randomBytes(MiB).copy(v1, at * MiB)
  await writeFile(paths[0], v1)
  for (let at = 0; at < mib; at += 100) randomBytes(2 * MiB).copy(v1, at * MiB)
  await writeFile(paths[1], v1)
  return paths
}

function user() {
  return {
    NODE_TEST_CONTEXT: undefined,
    OS_AUTH_URL: `${service!.address}/identity/v3`,
    OS_USERNAME: cast.admin.user,
    OS_PASSWORD: cast.admin.password,
    OS_PROJECT_NAME: cast.admin.project,
  }
}

/** With the start of the program. @returns seconds */
async function deploy(image: string): Promise<number> {
  const began = performance.now()
  await must([process.execPath, main, 'deploy', image, '--to', device, '--yes', '--force-model'], { env: user() })
  return (performance.now() - began) / 1000
}

/** What was there before has nothing to do with the image. */
async function fill(): Promise<void> {
  const medium = await open(device, 'r+')
  const bytes = Buffer.alloc(4 * MiB, 0x5a)
  const { size } = await stat(join(folder, 'medium'))
  for (let at = 0; at < size; at += bytes.length) await medium.write(bytes, 0, Math.min(bytes.length, size - at), at)
  await medium.sync()
  await medium.close()
}

/** The download counts, as it does for `deploy`. */
async function convertAndWrite(requests: ImageRequests, id: string): Promise<number> {
  const [qcow2, raw] = [join(folder, 'image.qcow2'), join(folder, 'image.raw')]
  const began = performance.now()
  await writeFile(qcow2, (await requests.ask('GET', `/image/v2/images/${id}/file?format=qcow2`)).body!)
  await must(['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', qcow2, raw])
  await must(['dd', `if=${raw}`, `of=${device}`, 'bs=4M', 'conv=fsync', 'status=none'])
  return (performance.now() - began) / 1000
}
