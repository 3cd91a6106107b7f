/** The power goes while several clients work and the collector runs: recorded-disk.ts says what may then be on the disk. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { keepBusy, randomOf } from './busy-clients.ts'
import { untraceable } from './file-faults.ts'
import { ImageLedger, type Standing } from './image-ledger.ts'
import { ImageRequests } from './image-requests.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from './mortal-service.ts'
import { type Fate, RecordedDisk } from './recorded-disk.ts'

const noStrace = untraceable()
const STATES = Number(process.env.IMPRINT_TEST_STATES ?? 6)
const AT_ONCE = 3
const settings = { IMPRINT_QUOTA_IMAGES: '-1' }
const fates: readonly Fate[] = ['all lost', 'some', 'some']

function seedOfTest(): number {
  const seed = Number(process.env.IMPRINT_TEST_SEED ?? randomInt(1_000_000))
  console.log(`IMPRINT_TEST_SEED=${seed}`)
  return seed
}

async function inTurn(count: number, check: (n: number) => Promise<void>): Promise<void> {
  for (let n = 0; n < count; n += AT_ONCE) {
    const checks = Array.from({ length: Math.min(AT_ONCE, count - n) }, (_, more) => check(n + more))
    const failed = (await Promise.allSettled(checks)).find(({ status }) => status === 'rejected') // none runs on in a removed folder
    if (failed?.status === 'rejected') throw failed.reason
  }
}

/** What the clients had been told at a moment. */
interface Moment {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly ledger: ImageLedger
}

/** Notes each moment in which something was acknowledged. */
class LedgerInTime extends ImageLedger {
  readonly moments: Moment[] = []

  override async make(
    id: string,
    becomes: Standing,
    request: () => Promise<unknown>,
    between?: readonly Standing[],
  ): Promise<void> {
    await super.make(id, becomes, request, between)
    this.mark()
  }
  override async rename(id: string, name: string, request: () => Promise<unknown>): Promise<void> {
    await super.rename(id, name, request)
    this.mark()
  }
  /** Now. */
  mark(): void {
    this.moments.push({ at: Date.now() + 1, ledger: this.copy() }) // the clock has cut off a part of the millisecond
  }
}

test('whatever a power cut leaves of unsynced writes, what was acknowledged is there and nothing else is served', {
  skip: noStrace,
}, async () => {
  const seed = seedOfTest()
  const random = randomOf(seed)
  const folder = await folderInMemory('power')
  try {
    const ledger = new LedgerInTime()
    const service = await startMortal(folder, settings)
    const images = new ImageRequests(service.address, await adminToken(service))
    const disk = await RecordedDisk.record(service.pid, join(folder, 'data'), join(folder, 'trace'))
    const working = keepBusy(images, ledger, { clients: 3, seed, turns: 6 })
    for (let ended = false; !ended; ) {
      await images.job('collect')
      ended = await Promise.race([working.then(() => true), new Promise<false>((go) => setTimeout(go, 100, false))])
    }
    await working
    await service.stop() // with its checkpoints
    ledger.mark()
    await disk.ended()

    const last = ledger.moments.length - 1
    const check = async (n: number) => {
      const { at, ledger: told } = ledger.moments[n === 0 ? last : Math.floor(random() * last)]!
      const fate = fates[n % fates.length]!
      const after = join(folder, `state-${n}`)
      mkdirSync(after)
      const state = disk.stateAt(at)
      state.write(join(after, 'data'), fate, random)
      await assertRecovers(after, images.token, told.copy()).catch((cause: unknown) => {
        const where = `state ${n} of seed ${seed}, ${state.changes} changes, the unsynced ${fate}`
        throw new Error(`${where}: ${cause instanceof Error ? cause.message : cause}`, { cause })
      })
      await removeFolder(after)
    }
    await inTurn(STATES, check)
    console.log(`${ledger.moments.length} acknowledgements, ${STATES} states`)
  } finally {
    await removeFolder(folder)
  }
})

test('whatever a power cut leaves of the first start, the next one comes up', { skip: noStrace }, async () => {
  const seed = seedOfTest()
  const random = randomOf(seed)
  const folder = await folderInMemory('first')
  try {
    const log = join(folder, 'trace')
    const first = await startMortal(folder, settings, [], RecordedDisk.under(log))
    const token = await adminToken(first)
    const toldAt = Date.now() + 1
    await first.stop()
    const disk = RecordedDisk.of(join(folder, 'data'), log)
    const instants = disk.instants.filter((at) => at < toldAt)
    const check = async (n: number) => {
      const isTold = n === 0
      const at = isTold ? toldAt : instants[Math.floor(random() * instants.length)]!
      const fate = fates[n % fates.length]!
      const after = join(folder, `state-${n}`)
      mkdirSync(after)
      const state = disk.stateAt(at)
      state.write(join(after, 'data'), fate, random)
      const where = `state ${n} of seed ${seed}, ${state.changes} changes, the unsynced ${fate}`
      const service = await startMortal(after, settings).catch((cause: unknown) => assert.fail(`${where}: ${cause}`))
      try {
        if (isTold) assert.deepEqual(await new ImageRequests(service.address, token).list(), [], where)
        const images = new ImageRequests(service.address, await adminToken(service))
        const ledger = new ImageLedger()
        const id = randomUUID()
        await ledger.make(id, { is: 'queued' }, () => images.create(id, 'x'))
        await ledger.assertKept(images)
      } finally {
        await service.kill()
        await removeFolder(after)
      }
    }
    await inTurn(STATES, check)
  } finally {
    await removeFolder(folder)
  }
})

test('the model keeps what was synced, and nothing else for certain', { skip: noStrace }, async () => {
  const folder = await folderInMemory('model')
  try {
    const data = join(folder, 'data')
    writeFileSync(join(data, 'old'), 'old')
    const program = `
      const { open, rename } = require('node:fs/promises')
      const make = async (name, text, synced) => {
        const file = await open(${JSON.stringify(`${data}/`)} + name, 'w')
        await file.write(text)
        if (synced) await file.sync()
        await file.close()
      }
      process.stdin.once('data', async () => {
        await make('kept', 'kept', true)
        await make('empty', 'bytes without a sync', false)
        await rename(${JSON.stringify(`${data}/`)} + 'old', ${JSON.stringify(`${data}/`)} + 'renamed')
        const here = await open(${JSON.stringify(data)})
        await here.sync()
        await make('nameless', 'a sync of the file alone', true)
        process.exit()
      })
      process.stdout.write('ready')`
    const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    const disk = await RecordedDisk.record(child.pid!, data, join(folder, 'trace'))
    child.stdin.end('go\n')
    await disk.ended()
    const left = (fate: Fate, random = Math.random) => {
      const target = join(folder, `left ${fate}`)
      disk.stateAt(Date.now()).write(target, fate, random)
      return Object.fromEntries(readdirSync(target).map((name) => [name, readFileSync(join(target, name), 'utf8')]))
    }
    const certain = { kept: 'kept', renamed: 'old' }
    assert.deepEqual(left('all lost'), { ...certain, empty: '' })
    const kept = { ...certain, empty: 'bytes without a sync', nameless: 'a sync of the file alone' }
    assert.deepEqual(left('all kept'), kept)
    const { empty, ...others } = left('some', () => 0.25) // what is kept is cut off
    assert.deepEqual([others, kept.empty.startsWith(empty!)], [{ ...certain, nameless: kept.nameless }, true])
  } finally {
    await removeFolder(folder)
  }
})

async function assertRecovers(folder: string, token: string, told: ImageLedger): Promise<void> {
  const service = await startMortal(folder, settings)
  try {
    const images = new ImageRequests(service.address, token)
    await told.assertKept(images)
    await images.job('collect')
    const { faults } = await images.job('check', { readData: true })
    assert.deepEqual(faults, [])
    await told.assertKept(images)
  } finally {
    await service.kill()
  }
}
