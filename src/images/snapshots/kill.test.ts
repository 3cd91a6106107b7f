import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { type Failpoint, failpoints } from '../../base/failpoint.ts'
import { newImageFrom } from '../attributes.ts'
import { createImage } from '../create-image.ts'
import { deleteImage } from '../delete-image.ts'
import { sent } from '../image-world.suite.ts'
import { DiskLeases } from '../leases/disk-leases.ts'
import { LeasedDisks } from '../leases/leased-disks.ts'
import { allParts } from '../parts/image-parts.ts'
import { readPart } from '../parts/read-parts.ts'
import { recordedManifests } from '../recorded-manifests.ts'
import { upload } from '../upload.ts'
import { alice, base, contentsOn, draftOf, expectedDisk, memory, openSnapshots, partsOf } from './kill-child.suite.ts'

const child = join(import.meta.dirname, 'kill-child.suite.ts')

type Opened = Awaited<ReturnType<typeof openSnapshots>>
const leasesOf = ({ ports }: Opened) =>
  new DiskLeases({ ...ports, disks: new LeasedDisks(ports, null), scratchQuotaBytes: 0 }, '/run/nbd.sock')

/** A folder in which the disk of an image that is gone is lent. */
async function lentIn(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-snapshots-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const opened = await openSnapshots(folder)
  const { ports } = opened
  const { id } = await createImage(ports, alice, newImageFrom({ disk_format: 'raw', container_format: 'bare' }))
  await upload(ports, alice, id, sent(base))
  const { leaseId } = await leasesOf(opened).lend(alice, id, 'instance 1')
  await deleteImage(ports, alice, id)
  await opened.close()
  return { folder, leaseId }
}

async function killedAt(t: TestContext, folder: string, failpoint: string, id: string, lease: string): Promise<void> {
  const running = spawn(process.execPath, [child, folder, id, lease], {
    env: { ...process.env, IMPRINT_FAILPOINT: failpoint },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  t.after(() => running.kill('SIGKILL'))
  const signal = await new Promise((resolve) => running.once('exit', (_, signal) => resolve(signal)))
  assert.equal(signal, 'SIGKILL', `the snapshot never came by ${failpoint}`)
}

const collected = async ({ ports }: Opened) => {
  await ports.chunks.collect(() => recordedManifests(ports.catalog))
  for await (const fault of ports.chunks.check(() => recordedManifests(ports.catalog), { readData: true }))
    assert.fail(fault.message)
  const { manifests, chunks } = await ports.chunks.stats()
  return { manifests, chunks }
}

type Ours = Extract<Failpoint, `snapshot:${string}`>
/** With the state in which the next start finds the image. */
const killing: Readonly<Record<Exclude<Ours, 'snapshot:deleted'>, 'queued' | 'active'>> = {
  'snapshot:begun': 'queued',
  'snapshot:part-ingested': 'queued',
  'snapshot:part-recorded': 'queued',
  'snapshot:saving': 'queued',
  'snapshot:ingested': 'queued',
  'snapshot:active': 'active',
}
const cases: readonly (readonly [failpoint: string, status: string])[] = [
  ...Object.entries(killing),
  ['snapshot:part-ingested:2', 'queued'],
  ['manifest:committed:3', 'queued'],
]

for (const [failpoint, status] of cases) {
  test(`a snapshot that is killed at ${failpoint} is finished by who asks again, and nothing leaks`, async (t) => {
    const { folder, leaseId } = await lentIn(t)
    const id = randomUUID()
    await killedAt(t, folder, failpoint, id, leaseId)

    const opened = await openSnapshots(folder)
    const { ports, snapshots } = opened
    assert.equal((await ports.catalog.images.get(id))?.status, status)
    await snapshots.begin(alice, draftOf(id))
    for (const part of partsOf()) await snapshots.addPart(id, part)
    await snapshots.save(id, contentsOn(leaseId))
    await ports.jobs.idle()
    const image = (await ports.catalog.images.get(id))!
    assert.deepEqual([image.status, image.checksum?.length, image.notes.failure], ['active', 32, undefined])
    assert.ok(expectedDisk().equals(await buffer(ports.chunks.stream(image.manifest!, 0, image.size!))))
    assert.ok(memory.equals(await buffer(readPart(ports, alice, id, 'memory'))))
    await leasesOf(opened).release(leaseId)
    assert.equal((await collected(opened)).manifests, 3, 'the disk and two parts')
    await deleteImage(ports, alice, id)
    assert.deepEqual(await collected(opened), { manifests: 0, chunks: 0 })
    await opened.close()
  })
}

test('a snapshot that is given up and killed is gone', async (t) => {
  const { folder, leaseId } = await lentIn(t)
  const id = randomUUID()
  await killedAt(t, folder, 'snapshot:deleted', id, 'give-up')
  const opened = await openSnapshots(folder)
  await opened.snapshots.giveUp(id)
  assert.equal((await opened.ports.catalog.images.get(id))?.status, 'deleted')
  assert.deepEqual(await Array.fromAsync(allParts(opened.ports.catalog)), [])
  await leasesOf(opened).release(leaseId)
  assert.deepEqual(await collected(opened), { manifests: 0, chunks: 0 })
  await opened.close()
})

test('every failpoint of snapshots is tried', () => {
  const ours = failpoints.filter((name) => name.startsWith('snapshot:'))
  assert.deepEqual([...Object.keys(killing), 'snapshot:deleted'].sort(), [...ours].sort())
})
