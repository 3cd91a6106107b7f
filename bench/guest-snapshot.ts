/**
 * Snapshots of a guest that runs: a disk of 2 GiB full of data, 20 MB written on it between two snapshots. Prints for each round the seconds
 * from the request to the active image, the bytes that the store took in, and for how long the guest stood still at most: the
 * longest time between two looks at its clock, by a program in it that does nothing else. Under emulation that time has a share
 * of the host's scheduler in it, so it is measured without a snapshot as well.
 *
 *   node bench/guest-snapshot.ts [rounds]
 */
import { openAsBlob } from 'node:fs'
import { copyFile, mkdtemp, open, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { GiB, MiB } from '../src/base/units.ts'
import { ImageRequests, noise } from '../test/durability/image-requests.ts'
import { adminToken, startMortal } from '../test/durability/mortal-service.ts'
import { endMachines } from '../test/fixtures/guest/end-machines.ts'
import { HANDS } from '../test/fixtures/guest/hands.ts'
import { tinyGuest } from '../test/fixtures/guest/tiny-guest.ts'
import { measured } from './glance/bench-case.ts'

const rounds = Number(process.argv[2] ?? 5)
const DISK_BYTES = 2 * GiB
const CHANGED_MIB = 20

/** Looks at its clock all the time, in hundredths of a second, and keeps the longest time between two looks. */
const CLOCK = `(last=; most=0; while :; do read up rest < /proc/uptime; now=\${up%.*}\${up#*.}
[ -e /reset ] && { most=0; last=; rm /reset; }
[ -n "$last" ] && [ $((now - last)) -gt $most ] && { most=$((now - last)); echo $most > /most; }
last=$now; done) > /dev/null 2>&1 &`

const folder = await mkdtemp(join(tmpdir(), 'imprint-guest-snapshot-'))
const service = await startMortal(folder)
try {
  const requests = new ImageRequests(service.address, await adminToken(service))
  const disk = await fullDisk()
  const imageId = crypto.randomUUID()
  await requests.create(imageId, 'two GiB', 'raw')
  await requests.send(imageId, await openAsBlob(disk))
  const instance = await startGuest(requests, imageId)
  await instance.run(CLOCK)
  await instance.snapshot('first') // from here on what changes is known
  const seconds: number[] = []
  const moved: number[] = []
  const still: number[] = []
  const still0: number[] = []
  for (let round = 1; round <= rounds; round += 1) {
    const seek = 100 + 2 * CHANGED_MIB * round
    const wrote = await instance.run(
      `dd if=/dev/urandom bs=1M count=${CHANGED_MIB} 2>/dev/null | dd of=/dev/vda bs=512 seek=${seek * 2048} conv=notrunc 2>&1; sync`,
    )
    if (!wrote.includes(`${CHANGED_MIB * 2048}+0 records out`)) throw new Error(`the guest could not write: ${wrote}`)
    await instance.longest(() => pause(2000)).then((ms) => still0.push(ms))
    const before = await ingestedBytes(requests)
    const begun = performance.now()
    still.push(await instance.longest(() => instance.snapshot(`round-${round}`)))
    seconds.push((performance.now() - begun) / 1000)
    moved.push((await ingestedBytes(requests)) - before)
    console.log(
      `round ${round}: ${seconds.at(-1)!.toFixed(2)} s, ${(moved.at(-1)! / 1e6).toFixed(1)} MB, still ${still.at(-1)} ms (without: ${still0.at(-1)} ms)`,
    )
  }
  const mid = (all: readonly number[]) => measured(all).median
  console.log(`snapshot of ${DISK_BYTES / GiB} GiB with ${CHANGED_MIB} MiB changed, medians of ${rounds}:`)
  console.log(
    `  ${mid(seconds).toFixed(2)} s (at most 3), ${(mid(moved) / 1e6).toFixed(1)} MB moved (at most 30), the guest stood still for ${mid(still)} ms (at most 100; without a snapshot ${mid(still0)} ms)`,
  )
} finally {
  await endMachines(join(folder, 'data'))
  await service.stop()
  await rm(folder, { recursive: true, force: true })
}

/** The tiny guest's disk, and data that cannot be compressed behind it. */
async function fullDisk(): Promise<string> {
  const path = join(folder, 'disk.raw')
  await copyFile(await tinyGuest(), path)
  const file = await open(path, 'r+')
  for (let at = (await stat(path)).size; at < DISK_BYTES; at += 16 * MiB) await file.write(noise(at, 16 * MiB), 0, 16 * MiB, at)
  await file.close()
  return path
}

async function ingestedBytes(requests: ImageRequests): Promise<number> {
  const text = await (await requests.ask('GET', '/metrics')).text()
  return Number(/^imprint_ingested_bytes_total (\S+)/m.exec(text)?.[1])
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await pause(10)
}

interface Guest {
  run(script: string): Promise<string>
  /** Milliseconds for which it stood still at most while the work was done. */
  longest(work: () => Promise<unknown>): Promise<number>
  /** Settles when the image is active. */
  snapshot(name: string): Promise<void>
}

async function startGuest(requests: ImageRequests, imageId: string): Promise<Guest> {
  const compute = '/compute/v2.1'
  await requests.json('POST', `${compute}/flavors`, { flavor: { id: 'bench', name: 'bench', ram: 128, vcpus: 1, disk: 0 } })
  const server = {
    name: 'bench',
    imageRef: imageId,
    flavorRef: 'bench',
    user_data: Buffer.from(HANDS).toString('base64'),
    metadata: { 'imprint:forwards': 'tcp:0:80' },
  }
  const { server: made } = await requests.json<{ server: { id: string } }>('POST', `${compute}/servers`, { server })
  const show = async () =>
    (
      await requests.json<{
        server: { metadata: Record<string, string>; status: string; 'OS-EXT-STS:task_state': string | null }
      }>('GET', `${compute}/servers/${made.id}`)
    ).server
  const atRest = () => until(async () => (await show())['OS-EXT-STS:task_state'] === null)
  await atRest()
  const port = (await show()).metadata['imprint:forwards']!.split(':')[1]
  const run = async (script: string): Promise<string> => {
    for (;;) {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/cgi-bin/run`, { method: 'POST', body: script })
        if (answer.ok) return (await answer.text()).trim()
      } catch {}
      await pause(200) // it is starting
    }
  }
  return {
    run,
    async longest(work) {
      await run('echo > /reset; while [ -e /reset ]; do :; done; echo 0 > /most')
      await work()
      return Number(await run('cat /most')) * 10
    },
    async snapshot(name) {
      await requests.json('POST', `${compute}/servers/${made.id}/action`, { createImage: { name } })
      await until(async () => (await requests.list()).some((image) => image.name === name && image.status === 'active'))
      await atRest()
    },
  }
}
