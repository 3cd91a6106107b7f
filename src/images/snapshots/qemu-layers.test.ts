/** Layers as QEMU leaves them under a machine, against what QEMU itself reads through them. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { lacking, run, scratch } from '../../../test/fixtures/disk/tools.ts'
import { openFileSource } from '../../disk/block/file-source.ts'
import { openImage } from '../../disk/formats/index.ts'
import { imageWorld, sent, someone } from '../image-world.suite.ts'
import { DiskLeases } from '../leases/disk-leases.ts'
import { LeasedDisks } from '../leases/leased-disks.ts'
import { upload } from '../upload.ts'
import { ImageSnapshots } from './snapshots.ts'

const MiB = 2 ** 20
const BASE_BYTES = 70 * MiB + 512 // its last chunk is short, and it has more than a page
const alice = someone('alice')

/** QEMU's name for a chain of layers over a file, of which none names the one below. */
const chain = (format: string, base: string, ...layers: readonly string[]): string => {
  const below: object = { driver: format, file: { driver: 'file', filename: base } }
  const top = layers.reduce((backing, filename) => ({ driver: 'qcow2', file: { driver: 'file', filename }, backing }), below)
  return `json:${JSON.stringify(top)}`
}

const commands = [
  ['write -P 1 0 512', 'write -P 2 100k 3M', 'write -z 20M 4M', 'discard 30M 1M', 'write -P 3 66M 70k'],
  ['write -P 4 101k 10', 'write -z 1M 512', 'write -P 5 21M 1M', 'write -z -u 66M 64k', 'write -P 6 30M 100'],
] as const

for (const [format, grownBytes] of [
  ['raw', 0],
  ['qcow2', 0],
  ['raw', 80 * MiB],
] as const) {
  test(`what QEMU wrote on a ${format} image is in the snapshot, with ${grownBytes} bytes more than the image`, {
    skip: lacking('qemu-img', 'qemu-io'),
  }, async (t) => {
    const path = await scratch(t)
    const diskBytes = BASE_BYTES + grownBytes
    await makeBase(path, format)
    const layers = ['layer.0', 'layer.1'].map(path)
    for (const [index, layer] of layers.entries()) {
      await run('qemu-img', 'create', '-q', '-f', 'qcow2', layer, String(diskBytes))
      const top = chain(format, path('base'), ...layers.slice(0, index + 1))
      await run('qemu-io', ...optionsOf(top, commands[index]!))
    }
    await run('qemu-img', 'convert', '-O', 'raw', chain(format, path('base'), ...layers), path('expected'))
    const expected = await readFile(path('expected'))
    const found = await snapshotOf(t, await readFile(path('base')), format, diskBytes, layers)
    assert.equal(found.length, diskBytes)
    assert.ok(found.equals(expected))
  })
}

/** `qemu-io` takes commands before the file. */
const optionsOf = (file: string, more: readonly string[]): string[] => [...more.flatMap((command) => ['-c', command]), file]

async function makeBase(path: (name: string) => string, format: string): Promise<void> {
  const disk = Buffer.alloc(BASE_BYTES)
  for (const at of [0, 500_000, 19 * MiB, 29 * MiB, BASE_BYTES - 5 * MiB]) disk.set(randomBytes(2 * MiB), at)
  disk.set(randomBytes(1000), BASE_BYTES - 1000)
  await writeFile(path('base.raw'), disk)
  await run('qemu-img', 'convert', '-f', 'raw', '-O', format, path('base.raw'), path('base'))
}

async function snapshotOf(
  t: TestContext,
  base: Buffer,
  format: string,
  diskBytes: number,
  files: readonly string[],
): Promise<Buffer> {
  const world = await imageWorld({ maxImageBytes: 2 ** 30 })
  t.after(() => world.close())
  const snapshots = new ImageSnapshots(world.ports)
  const disks = new LeasedDisks(world.ports, null)
  const { id: imageId } = await world.create(alice, { disk_format: format })
  await upload(world.ports, alice, imageId, sent(base))
  const leases = new DiskLeases({ ...world.ports, disks, scratchQuotaBytes: 0 }, '/run/nbd.sock')
  const { leaseId } = await leases.lend(alice, imageId, 'instance 1')
  const id = randomUUID()
  await snapshots.begin(alice, { id, name: 'snapshot', bytes: diskBytes, minDisk: 0, minRam: 0, properties: {} })
  const layers = await Promise.all(files.map(async (file) => openImage('qcow2', await openFileSource(file))))
  await snapshots.save(id, { disk: { bytes: diskBytes, leaseId, layers }, properties: {} })
  for (const layer of layers) await layer.close()
  const image = (await world.ports.catalog.images.get(id))!
  await world.ports.jobs.idle()
  assert.deepEqual(world.problems, [])
  return buffer(world.chunks.stream(image.manifest!, 0, image.size!))
}
