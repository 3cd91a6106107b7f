/** Ten thousand connections that do nothing, or next to nothing, and a few clients who want to work. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ImageRequests, noise, smallDisk } from '../durability/image-requests.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from '../durability/mortal-service.ts'
import type { Kind } from './held-connections.ts'

const WANTED = 10_000
/** Of the descriptors that a process may have, what the service needs for itself. */
const RESERVE = 500
const SLOW_BODIES = 60 // of one project; its limit is 100 at once
const SLOW_READERS = 60
const HONEST_TURNS = 30
const MAX_RSS_BYTES = 1.5 * 2 ** 30
const holder = join(import.meta.dirname, 'held-connections.ts')

test('beside ten thousand connections that hardly move, honest requests are answered', async () => {
  const folder = await folderInMemory('slow')
  const service = await startMortal(folder, { IMPRINT_QUOTA_IMAGES: '-1' })
  const holders: ChildProcess[] = []
  try {
    const images = new ImageRequests(service.address, await adminToken(service))
    const port = new URL(service.address).port
    const large = randomUUID()
    await images.create(large, 'large')
    await images.send(large, noise(1, 8 * 2 ** 20))
    const hold = async (kind: Kind, count: number, path = '') => {
      const child = spawn(process.execPath, [holder, port, String(count), kind, path, images.token], {
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      holders.push(child)
      const [line] = await once(child.stdout, 'data')
      return Number(/held (\d+)/.exec(String(line))?.[1])
    }
    const before = rssBytes(service.pid)
    const many = Math.min(WANTED, openFilesLimit(service.pid) - RESERVE) - SLOW_BODIES - SLOW_READERS
    const idle = await hold('idle', Math.floor(many / 2))
    const headers = await hold('slow-headers', Math.ceil(many / 2))
    const readers = await hold('slow-reader', SLOW_READERS, `/image/v2/images/${large}/file`)
    const slow = Array.from({ length: SLOW_BODIES }, () => randomUUID())
    for (const id of slow) await images.create(id, 'slow')
    const bodies = await hold('slow-body', SLOW_BODIES, slow.map((id) => `/image/v2/images/${id}/file`).join())
    const answeredMs: number[] = []
    for (let turn = 0; turn < HONEST_TURNS; turn += 1) await honestTurn(images, turn, answeredMs)
    const sorted = answeredMs.toSorted((a, b) => a - b)
    const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!)
    const rss = rssBytes(service.pid)
    console.log(
      `${idle} idle, ${headers} with slow headers, ${readers} that do not read, ${bodies} with slow bodies; ` +
        `${sorted.length} honest requests: median ${at(0.5)} ms, p99 ${at(0.99)} ms, slowest ${at(1)} ms; ` +
        `resident ${Math.round(before / 2 ** 20)} → ${Math.round(rss / 2 ** 20)} MiB`,
    )
    assert.ok(rss <= MAX_RSS_BYTES, `${rss} bytes are resident`)
    assert.equal((await images.show(large))?.status, 'active')
  } finally {
    for (const child of holders) child.kill('SIGKILL')
    await service.stop()
    await removeFolder(folder)
  }
})

async function honestTurn(images: ImageRequests, turn: number, answeredMs: number[]): Promise<void> {
  const timed = async <T>(work: Promise<T>): Promise<T> => {
    const from = performance.now()
    const value = await work
    answeredMs.push(performance.now() - from)
    return value
  }
  const id = randomUUID()
  const bytes = smallDisk(turn)
  await timed(images.create(id, `honest ${turn}`))
  await timed(images.send(id, bytes))
  assert.equal(Buffer.compare(await timed(images.fetch(id)), bytes), 0)
  assert.ok((await timed(images.list())).length > 0)
}

const rssBytes = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
const openFilesLimit = (pid: number): number =>
  Number(/Max open files\s+(\d+)/.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1])
