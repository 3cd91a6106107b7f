import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import type { BlockWriter } from '../../disk/block/block-writer.ts'
import { MAX_SCRATCH_BYTES, ScratchDisks } from '../../store/scratch/scratch-disks.ts'
import { listAudit } from '../audit.ts'
import { deleteImage } from '../delete-image.ts'
import { type ImageWorld, imageWorld, sent, someone } from '../image-world.suite.ts'
import { upload } from '../upload.ts'
import { createExport, type ExportPorts, endExport, listExports, sweepExports } from './exports.ts'
import { allLeases, getLease } from './lease.ts'
import { type LeasedDisk, LeasedDisks } from './leased-disks.ts'

const MiB = 2 ** 20
let world: ImageWorld
let folder: string
let scratch: ScratchDisks
let disks: LeasedDisks
let ports: ExportPorts
/** What may be promised of the file system, and what of it is promised to machines and volumes. */
let room: { promisableBytes: number; elsewhereBytes: number }
let later = 0
before(async () => {
  world = await imageWorld()
  folder = mkdtempSync(join(tmpdir(), 'imprint-scratch-'))
})
beforeEach(async () => {
  later = 0
  room = { promisableBytes: Number.POSITIVE_INFINITY, elsewhereBytes: 0 }
  await start()
})
after(async () => {
  await world.close()
  rmSync(folder, { recursive: true })
})

/** What a start of the service makes of the folder. */
async function start(): Promise<void> {
  const { catalog } = world.ports
  const now = () => Date.now() + later
  scratch = await ScratchDisks.at(folder)
  await scratch.sweep(async (id) => (await getLease(catalog, id)) !== undefined)
  disks = new LeasedDisks({ catalog, chunks: world.chunks, now }, scratch)
  const hostDisk: ExportPorts['hostDisk'] = {
    promisable: async () => room.promisableBytes,
    async promised(documents) {
      const leases = await Array.fromAsync(allLeases({ images: catalog.images, documents }, 'export'))
      return leases.reduce((sum, { body }) => sum + (body.isWritable ? body.diskBytes : 0), room.elsewhereBytes)
    },
  }
  ports = { catalog, now, disks, scratchQuotaBytes: 64 * MiB, hostDisk }
}

const alice = someone('alice')
async function newImage(bytes: Buffer): Promise<string> {
  const { id } = await world.create(alice)
  await upload(world.ports, alice, id, sent(bytes))
  return id
}
async function opened(name: string): Promise<LeasedDisk & { readonly writer: BlockWriter }> {
  const disk = await disks.open(name)
  assert.ok(disk?.writer, 'the name is good, for writing')
  return { ...disk, writer: disk.writer }
}
const bytesOf = async ({ disk }: LeasedDisk) => Buffer.from(await disk.read(0, disk.size))
const folders = () => readdirSync(folder)

test('what is written to the disk of an image is read by all who have it open, and the image stays as it was', async () => {
  const bytes = randomBytes(300_000)
  const imageId = await newImage(bytes)
  const [mine, plain] = await Promise.all([true, false].map((isWritable) => createExport(ports, alice, { imageId, isWritable })))
  const [one, two] = [await opened(mine!.name), await opened(mine!.name)]
  await one.writer.write(70_000, Buffer.from('written'))
  const expected = Buffer.from(bytes)
  expected.write('written', 70_000)
  assert.ok(expected.equals(await bytesOf(two)))
  await one.release()
  await two.release()
  const again = await opened(mine!.name)
  assert.ok(expected.equals(await bytesOf(again)), 'also when nobody had it open in between')
  await again.release()
  const readOnly = await disks.open(plain!.name)
  assert.equal(readOnly?.writer, undefined)
  assert.ok(bytes.equals(await bytesOf(readOnly!)))
  await readOnly!.release()

  await deleteImage(world.ports, alice, imageId)
  await world.collect()
  const late = await opened(mine!.name)
  assert.ok(expected.equals(await bytesOf(late)), 'and when the image is gone')
  await late.release()
  for (const { id } of [mine!, plain!]) await endExport(ports, alice, id)
  await world.collect()
  assert.equal((await world.chunks.stats()).chunks, 0)
  assert.deepEqual([folders(), disks.openDisks], [[], 0])
})

test('a blank disk is zeros until it is written, and its lease stands in the record of the project', async () => {
  const { id, name, image, diskBytes } = await createExport(ports, alice, { blankBytes: MiB })
  assert.deepEqual([image, diskBytes], [null, MiB])
  const open = await opened(name)
  assert.ok(Buffer.alloc(MiB).equals(await bytesOf(open)))
  assert.deepEqual(await Array.fromAsync(open.disk.extents(0, MiB)), [{ offset: 0, length: MiB, kind: 'hole' }])
  await open.writer.write(MiB - 5, Buffer.from('the e'))
  assert.equal((await bytesOf(open)).subarray(-5).toString(), 'the e')
  await open.release()
  await endExport(ports, alice, id)
  const [release, lend] = await listAudit(ports.catalog, { projectId: 'alice' }, { limit: 2 })
  assert.deepEqual([release!.record.action, lend!.record.action, lend!.record.imageId], ['release', 'lend', null])
  assert.deepEqual(lend!.record.details, { lease: id, holder: 'export', writable: true })
})

test('what was answered survives a death of the service, flushed or not', async () => {
  const bytes = randomBytes(300_000)
  const { name, id } = await createExport(ports, alice, { imageId: await newImage(bytes), isWritable: true })
  const open = await opened(name)
  const expected = Buffer.from(bytes)
  await open.writer.write(1000, expected.fill(7, 1000, 80_000).subarray(1000, 80_000))
  await open.writer.flush()
  await open.writer.write(140_000, expected.fill(9, 140_000, 140_100).subarray(140_000, 140_100)) // of which the map on the disk knows nothing
  await start() // and nobody closed it
  const after = await opened(name)
  assert.ok(expected.equals(await bytesOf(after)))
  await after.release()
  await endExport(ports, alice, id)
  assert.deepEqual(folders(), [])
})

test('the end of an export ends its disk: while it is open, after it was closed, by its expiry, after a death', async () => {
  const made = () => createExport(ports, alice, { blankBytes: MiB, seconds: 60 })
  const written = async ({ name }: { readonly name: string }) => {
    const open = await opened(name)
    await open.writer.write(0, Buffer.from('x'))
    return open
  }
  const [first, second, third, fourth] = [await made(), await made(), await made(), await made()]
  const open = await written(first)
  for (const one of [second, third, fourth]) await (await written(one)).release()
  assert.deepEqual(folders().sort(), [first, second, third, fourth].map(({ id }) => id).sort())
  await endExport(ports, alice, first.id)
  assert.ok(open.revoked.aborted)
  await open.release()
  assert.deepEqual(folders().includes(first.id), false)
  await endExport(ports, alice, second.id)
  assert.equal(folders().length, 2)
  await world.ports.catalog.write(async ({ documents }) => void (await documents.delete('disk-lease', third.id)))
  await start() // it died between the lease and the disk
  assert.deepEqual(folders(), [fourth.id])
  later = 61_000
  assert.equal(await sweepExports(ports), 1)
  assert.deepEqual(folders(), [])
})

test('writable disks of a project have a limit, counted as they are made; so has each of them', async () => {
  const large = await createExport(ports, alice, { blankBytes: 60 * MiB })
  await assert.rejects(createExport(ports, alice, { blankBytes: 5 * MiB }), { code: 'over-quota', message: /writable/ })
  const other = await createExport(ports, someone('bob'), { blankBytes: 5 * MiB })
  await endExport(ports, alice, large.id)
  const small = await createExport(ports, alice, { blankBytes: 5 * MiB })
  ports = { ...ports, scratchQuotaBytes: -1 }
  await assert.rejects(createExport(ports, alice, { blankBytes: MAX_SCRATCH_BYTES + 512 }), { code: 'too-large' })
  const vast = await createExport(ports, alice, { blankBytes: MAX_SCRATCH_BYTES })
  const open = await opened(vast.name)
  await open.writer.write(MAX_SCRATCH_BYTES - 1, Uint8Array.of(5))
  await open.writer.writeZeroes(0, 2 ** 32 - 1, true)
  assert.equal((await open.disk.read(MAX_SCRATCH_BYTES - 1, 1))[0], 5)
  await open.release()
  assert.equal((await listExports(ports, alice)).length, 2)
  for (const [caller, { id }] of [
    [alice, small],
    [alice, vast],
    [someone('bob'), other],
  ] as const)
    await endExport(ports, caller, id)
  assert.deepEqual(folders(), [])
})

test('all projects together are promised no more than the host has; who only reads is promised nothing', async () => {
  room = { promisableBytes: 12 * MiB, elsewhereBytes: 4 * MiB }
  const asked = [1, 2, 3, 4].map((n) => createExport(ports, someone(`project-${n}`), { blankBytes: 4 * MiB }))
  const made = (await Promise.allSettled(asked)).filter((one) => one.status === 'fulfilled')
  assert.equal(made.length, 2, 'whoever asks at once')
  assert.equal(folders().length, 2, 'what was refused left nothing')
  const imageId = await newImage(randomBytes(100_000))
  await assert.rejects(createExport(ports, alice, { imageId, isWritable: true }), {
    code: 'no-space',
    message: /^of 12 MiB that this host can promise .* 12 MiB are, and 98 KiB more do not fit; end some/,
  })
  const readOnly = await createExport(ports, alice, { imageId, isWritable: false })
  await endExport(ports, alice, readOnly.id)
  for (const { value } of made) await endExport(ports, someone(value.projectId!), value.id)
  const fits = await createExport(ports, alice, { imageId, isWritable: true })
  await endExport(ports, alice, fits.id)
})

test('a place that was lost is told of, not taken for a disk that nobody wrote', async () => {
  const { id, name } = await createExport(ports, alice, { blankBytes: MiB })
  rmSync(join(folder, id), { recursive: true }) // as when the catalog alone came back from a backup
  await assert.rejects(disks.open(name), { code: 'corrupt', message: /gone/ })
  await endExport(ports, alice, id)
})

test('what is refused leaves no disk behind', async () => {
  const { id: imageId } = await world.create(alice)
  await assert.rejects(createExport(ports, alice, { imageId, isWritable: true }), { code: 'conflict' })
  await assert.rejects(createExport(ports, alice, { blankBytes: 65 * MiB }), { code: 'over-quota' })
  assert.deepEqual(folders(), [])
})

test('a reader makes no blank disk', async () => {
  await assert.rejects(createExport(ports, someone('alice', 'reader'), { blankBytes: MiB }), { code: 'denied' })
})
