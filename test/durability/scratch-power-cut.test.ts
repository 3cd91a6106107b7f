/** The power goes while a scratch disk is written: recorded-disk.ts says what may then be on the disk. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt, randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { COW_BLOCK_BYTES } from '../../src/disk/filters/cow.ts'
import { randomOf } from './busy-clients.ts'
import { untraceable } from './file-faults.ts'
import { folderInMemory, removeFolder } from './mortal-service.ts'
import { type Fate, RecordedDisk } from './recorded-disk.ts'
import { baseBytes, DISK_BYTES, openScratch, type Step, stepsOf } from './scratch-writer.ts'

const STATES = 10 * Number(process.env.IMPRINT_TEST_STATES ?? 6)
const fates: readonly Fate[] = ['all lost', 'some', 'some', 'all kept']

test('after a power cut each byte of a scratch disk is as it was flushed, or as something made it since', {
  skip: untraceable(),
}, async () => {
  const seed = Number(process.env.IMPRINT_TEST_SEED ?? randomInt(1_000_000))
  console.log(`IMPRINT_TEST_SEED=${seed}`)
  const random = randomOf(seed)
  const folder = await folderInMemory('scratch')
  try {
    const [data, id] = [join(folder, 'data'), randomUUID()]
    const { disk, madeAt, doneAt } = await recorded(data, id, seed, join(folder, 'trace'))
    const steps = stepsOf(seed)
    assert.equal(doneAt.length, steps.length)
    const looked = placesOf(steps)
    for (let n = 0; n < STATES; n += 1) {
      const at = n === 0 ? doneAt.at(-1)! : madeAt + Math.floor(random() * (doneAt.at(-1)! - madeAt))
      const after = join(folder, `state-${n}`)
      const state = disk.stateAt(at)
      state.write(after, fates[n % fates.length]!, random)
      const allowed = bytesSince(steps, looked, doneAt.filter((time) => time <= at).length)
      const scratch = await openScratch(after, id, 'another start of the system')
      const found = await scratch.read(0, DISK_BYTES)
      const told = `state ${n} of seed ${seed}, ${state.changes} changes, the unsynced ${fates[n % fates.length]}`
      for (const [index, at] of looked.entries()) {
        const may = allowed[index]!
        assert.ok(may.has(found[at]!), `${told}: ${found[at]} at ${at} is none of ${[...may]}`)
      }
      await scratch.close()
      await removeFolder(after)
    }
  } finally {
    await removeFolder(folder)
  }
})

/** Lets the writer run to its end, recorded. */
async function recorded(data: string, id: string, seed: number, trace: string) {
  const program = join(import.meta.dirname, 'scratch-writer.ts')
  const child = spawn(process.execPath, [program, data, id, String(seed)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  await lines.next()
  const disk = await RecordedDisk.record(child.pid!, data, trace)
  child.stdin.end('go\n')
  const times: number[] = []
  for await (const line of { [Symbol.asyncIterator]: () => lines }) times.push(Number(line.split(' ')[1]))
  await disk.ended()
  const [madeAt = Number.NaN, ...doneAt] = times
  return { disk, madeAt, doneAt }
}

/** After it, what was written before is there for good. */
const isDurable = (step: Step): step is Extract<Step, { what: 'flush' | 'seal' }> => step.what === 'flush' || step.what === 'seal'

/** Bytes that are looked at: on both sides of every edge, and some between. */
function placesOf(steps: readonly Step[]): readonly number[] {
  const edges = steps.flatMap((step) => (isDurable(step) ? [] : [step.offset, step.offset + step.length]))
  const blocks = Array.from({ length: 8 }, (_, block) => block * COW_BLOCK_BYTES)
  const between = Array.from({ length: 2000 }, (_, n) => n * 197)
  const places = [...edges, ...blocks].flatMap((at) => [at - 1, at]).concat(between)
  return places.filter((at) => at >= 0 && at < DISK_BYTES)
}

/** What a byte may be when so many steps were acknowledged: as of the last flush among them, and all that it was since. */
function bytesSince(steps: readonly Step[], looked: readonly number[], acknowledged: number): readonly ReadonlySet<number>[] {
  const flushed = steps.slice(0, acknowledged).findLastIndex(isDurable) + 1
  const bytes = baseBytes()
  for (const step of steps.slice(0, flushed)) apply(step, bytes)
  const allowed = looked.map((at) => new Set([bytes[at]!]))
  // the step after the last acknowledged one may be under way
  for (const step of steps.slice(flushed, acknowledged + 1)) {
    apply(step, bytes)
    for (const [index, at] of looked.entries()) allowed[index]!.add(bytes[at]!)
  }
  return allowed
}

function apply(step: Step, bytes: Uint8Array): void {
  if (isDurable(step)) return
  const end = step.offset + step.length
  if (step.what !== 'trim') {
    bytes.fill(step.what === 'write' ? step.byte : 0, step.offset, end)
    return
  }
  const lastWhole = end === DISK_BYTES ? end : Math.floor(end / COW_BLOCK_BYTES) * COW_BLOCK_BYTES
  bytes.fill(0, Math.ceil(step.offset / COW_BLOCK_BYTES) * COW_BLOCK_BYTES, lastWhole)
}
