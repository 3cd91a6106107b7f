/**
 * From the wish to start a machine to the first line of its userland: `imprint attach`, without and with the record of an earlier
 * start, beside a full copy by `qemu-img convert` that is then started. Over links of several speeds, in a network namespace of its own.
 *
 *   node bench/boot.ts [--disk disk.raw]… [--links local,1gbit,100mbit] [--rounds 1] [--ways copy,attach,…]
 *
 * As root, with iproute2 and QEMU. Without a disk the tiny guest of the tests is started. A disk must say something on its serial
 * port: the first line that matches `FIRST_LINE` counts. Machines run in emulation, so much of the time is the processor's. What the
 * disk alone takes is told by `reads`: the chunks of the recorded start, raw disks only, one after the other without a pause.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { COMMAND } from '../src/serve/nbd/protocol.ts'
import { decodeBootRecord } from '../src/store/content/boot-record.ts'
import { ImageRequests } from '../test/durability/image-requests.ts'
import { adminToken, type MortalService, startMortal } from '../test/durability/mortal-service.ts'
import { noTinyGuest, tinyGuest } from '../test/fixtures/guest/tiny-guest.ts'
import { NbdClient } from '../test/fixtures/nbd/nbd-client.ts'
import { command, missingTool, must } from '../test/peers/command.ts'
import { freePort } from '../test/peers/daemon.ts'
import { cast } from '../test/peers/identity-client.ts'
import { measured } from './glance/bench-case.ts'

const MiB = 2 ** 20
/** The tiny guest's script, or systemd. */
const FIRST_LINE = /^ready|Welcome to|TINY-READY|systemd\[1\]/m
const BOOT_WITHIN_MS = 15 * 60_000
const HERE = '10.213.7.1'
const THERE = '10.213.7.2'
const ways: readonly Way[] = ['copy', 'attach', 'recorded', 'reads', 'reads, recorded']
const main = resolve(import.meta.dirname, '../src/main.ts')

const { values } = parseArgs({
  options: {
    disk: { type: 'string', multiple: true, default: [] },
    links: { type: 'string', default: 'local,1gbit,100mbit' },
    rounds: { type: 'string', default: '1' },
    ways: { type: 'string', default: 'copy,attach,recorded,reads,reads+recorded' },
  },
})
const lacks =
  process.getuid?.() !== 0
    ? 'needs root'
    : missingTool('ip', 'tc', 'qemu-system-x86_64', 'qemu-img') || (values.disk.length === 0 && noTinyGuest())
if (lacks) {
  console.log(`skipped: ${lacks}`)
  process.exit(0)
}

const namespace = `imprint-boot-${process.pid}`
const [here, there] = [`ib${process.pid}h`, `ib${process.pid}t`]
const folder = await mkdtemp(join(tmpdir(), 'imprint-boot-'))
let service: MortalService | undefined
try {
  const refusal = await makeLink()
  if (refusal) {
    console.log(`skipped: no network namespace can be made here: ${refusal}`)
    process.exit(0)
  }
  await measureAll()
} finally {
  await service?.stop()
  await command(['ip', 'netns', 'delete', namespace])
  await command(['ip', 'link', 'delete', here])
  await rm(folder, { recursive: true, force: true })
}

async function makeLink(): Promise<string | undefined> {
  const steps: [string, ...string[]][] = [
    ['ip', 'netns', 'add', namespace],
    ['ip', 'link', 'add', here, 'type', 'veth', 'peer', 'name', there, 'netns', namespace],
    ['ip', 'address', 'add', `${HERE}/30`, 'dev', here],
    ['ip', 'link', 'set', here, 'up'],
    ['ip', '-n', namespace, 'address', 'add', `${THERE}/30`, 'dev', there],
    ['ip', '-n', namespace, 'link', 'set', there, 'up'],
    ['ip', '-n', namespace, 'link', 'set', 'lo', 'up'],
  ]
  for (const step of steps) {
    const { code, stderr } = await command(step)
    if (code !== 0) return `${step.join(' ')}: ${stderr.trim()}`
  }
  return undefined
}

/** Both ways; no delay is added. */
async function shape(link: string): Promise<void> {
  const qdisc = (device: string, ...rest: string[]): [string, ...string[]] => [
    'tc',
    'qdisc',
    'replace',
    'dev',
    device,
    'root',
    ...rest,
  ]
  const how = link === 'local' ? ['pfifo'] : ['tbf', 'rate', link, 'burst', '256kb', 'latency', '50ms']
  await must(qdisc(here, ...how))
  await must(['ip', 'netns', 'exec', namespace, ...qdisc(there, ...how)])
}

interface Start {
  readonly seconds: number
  /** Over the line, to the machine's host. */
  readonly movedBytes: number
}
/** The last two: only the reads of a start, by `attach` without and with its record. */
type Way = 'copy' | 'attach' | 'recorded' | 'reads' | 'reads, recorded'

async function measureAll(): Promise<void> {
  await mkdir(join(folder, 'data'))
  service = await startMortal(folder, {
    IMPRINT_LISTEN: `${HERE}:${await freePort()}`,
    IMPRINT_NBD_LISTEN: `${HERE}:${await freePort()}`,
    IMPRINT_NBD_ALLOW_CLEAR_TEXT: 'yes',
  })
  const requests = new ImageRequests(service.address, await adminToken(service))
  console.log('disk                     link      way              s, median   MiB moved   copy ÷ it   without ÷ with record')
  for (const disk of values.disk.length > 0 ? values.disk : [await tinyGuest()]) {
    const added = JSON.parse(
      await must([...imprint(), 'image', 'add', disk, '--name', basename(disk), '--json'], { env: user() }),
    )
    const id: string = added.id ?? added.image.id
    await shape('local')
    await startOf('recorded', id, requests, 'recording') // the first start of the image: not measured
    for (const link of values.links.split(',')) await measureLink(basename(disk), link, id, requests)
  }
}

async function measureLink(name: string, link: string, id: string, requests: ImageRequests): Promise<void> {
  await shape(link)
  const tried = ways.filter((way) => values.ways.split(',').includes(way.replace(', ', '+')))
  const starts = Object.fromEntries(ways.map((way) => [way, [] as Start[]])) as Record<Way, Start[]>
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const way of tried) starts[way].push(await startOf(way, id, requests, `${round}`))
  }
  const secondsOf = (way: Way) => measured(starts[way].map(({ seconds }) => seconds)).median
  for (const way of tried) {
    const moved = measured(starts[way].map(({ movedBytes }) => movedBytes / MiB)).median
    const ratio =
      (way === 'attach' || way === 'recorded') && starts.copy.length > 0 ? (secondsOf('copy') / secondsOf(way)).toFixed(2) : ''
    const without = { recorded: 'attach', 'reads, recorded': 'reads' }[way as string] as Way | undefined
    const byRecord = without && starts[without].length > 0 ? (secondsOf(without) / secondsOf(way)).toFixed(2) : ''
    console.log(
      `${name.slice(0, 24).padEnd(24)} ${link.padEnd(9)} ${way.padEnd(16)} ${secondsOf(way).toFixed(1).padStart(9)} ${moved.toFixed(1).padStart(11)} ${ratio.padStart(11)} ${byRecord.padStart(23)}`,
    )
  }
}

/** With nothing of the image on the host: a new cache, or no copy. */
async function startOf(way: Way, id: string, requests: ImageRequests, round: string): Promise<Start> {
  const place = join(folder, `${way}-${round}`)
  await mkdir(place)
  const before = await movedBytes()
  const began = performance.now()
  try {
    if (way === 'copy') {
      const seconds = await startCopy(id, requests, place, began)
      return { seconds, movedBytes: (await movedBytes()) - before }
    }
    const order = way.startsWith('reads') ? await recordedOrder(id, requests) : undefined
    const use = ({ uri, socket }: Attached) => (order ? readInOrder(socket, order) : boot(uri, 'raw', began))
    const seconds = await withAttached(id, place, way.endsWith('recorded'), use)
    return { seconds, movedBytes: (await movedBytes()) - before }
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}

async function startCopy(id: string, requests: ImageRequests, place: string, began: number): Promise<number> {
  const { uris } = await requests.json<{ uris: { tcp: string } }>('POST', '/v1/exports', { image: id })
  const copy = join(place, 'disk.qcow2')
  await must(onHost(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uris.tcp, copy]))
  return boot(copy, 'qcow2', began)
}

interface Attached {
  readonly uri: string
  readonly socket: string
}
async function withAttached<T>(id: string, place: string, isBoot: boolean, use: (attached: Attached) => Promise<T>): Promise<T> {
  const options = ['--json', '--cache', join(place, 'cache'), ...(isBoot ? [] : ['--no-boot-record'])]
  const child = started(onHost([...imprint(), 'attach', id, ...options]), user())
  try {
    return await use(JSON.parse(await textUntil(child, /^\}$/m)))
  } finally {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
}

/** Bytes where chunks begin, in the order of the start that was recorded. */
async function recordedOrder(id: string, requests: ImageRequests): Promise<readonly number[]> {
  const made = await requests.json<{ id: string }>('POST', '/v1/exports', { image: id })
  const { chunkBytes } = await requests.json<{ chunkBytes: number }>('GET', `/v1/exports/${made.id}/file`)
  const record = await requests.ask('GET', `/v1/exports/${made.id}/file/boot-record`)
  return decodeBootRecord(new Uint8Array(await record.arrayBuffer())).map(({ chunk }) => chunk * chunkBytes)
}

async function readInOrder(socket: string, order: readonly number[]): Promise<number> {
  const client = await NbdClient.open(socket, '')
  const began = performance.now()
  for (const offset of order) await client.request(COMMAND.READ, { offset, length: 4096 })
  client.socket.destroy()
  return (performance.now() - began) / 1000
}

/** @returns seconds since `began` when the first line of userland came */
async function boot(disk: string, format: string, began: number): Promise<number> {
  const machine = ['-machine', 'pc', '-accel', 'tcg', '-m', '512', '-display', 'none', '-monitor', 'none', '-serial', 'stdio']
  const drive = [
    '-nic',
    'none',
    '-no-reboot',
    '-snapshot',
    '-drive',
    `if=virtio,format=${format},file=${disk.replaceAll(',', ',,')}`,
  ]
  const child = started(onHost(['qemu-system-x86_64', ...machine, ...drive]))
  const late = setTimeout(() => child.kill('SIGKILL'), BOOT_WITHIN_MS)
  try {
    await textUntil(child, FIRST_LINE)
    return (performance.now() - began) / 1000
  } finally {
    clearTimeout(late)
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
}

async function textUntil(child: ChildProcess, pattern: RegExp): Promise<string> {
  let [text, errors] = ['', '']
  child.stderr!.setEncoding('utf8').on('data', (more: string) => {
    errors = (errors + more).slice(-2000)
  })
  for await (const piece of child.stdout!.setEncoding('utf8').iterator({ destroyOnReturn: false }) as AsyncIterable<string>) {
    text += piece
    if (!pattern.test(text)) continue
    child.stdout!.resume()
    return text
  }
  throw new Error(`it ended without ${pattern}:\n${text.slice(-1000)}\n${errors}`)
}

async function movedBytes(): Promise<number> {
  return Number(await readFile(`/sys/class/net/${here}/statistics/tx_bytes`, 'utf8'))
}

function imprint(): [string, ...string[]] {
  return [process.execPath, main]
}

/** At the other end of the link. */
function onHost(line: readonly string[]): [string, ...string[]] {
  return ['ip', 'netns', 'exec', namespace, ...line]
}

function started([program, ...args]: readonly [string, ...string[]], env: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
}

function user(): Record<string, string> {
  const { user: name, password, project } = cast.admin
  const OS_AUTH_URL = `${service!.address}/identity/v3`
  return { OS_AUTH_URL, OS_USERNAME: name, OS_PASSWORD: password, OS_PROJECT_NAME: project }
}
