import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isServiceError } from '../../src/base/errors.ts'
import { checked } from '../../src/disk/block/checked.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { bytesSource, memorySource } from '../../src/disk/block/memory-source.ts'
import { type Fact, formatNamed, formats, openableFormats, wrapDisk } from '../../src/disk/formats/index.ts'
import { hostileCases } from '../fixtures/disk/hostile.ts'
import { smallParallels } from '../fixtures/disk/parallels.ts'
import { smallQed } from '../fixtures/disk/qed.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'

const MiB = 2 ** 20
const asObject = (facts: readonly Fact[]) => Object.fromEntries(facts.map(({ name, value }) => [name, value]))

const made: readonly { name: string; format: string; words: readonly string[]; says: Record<string, unknown> }[] = [
  {
    name: 'a qcow2 with all it can have',
    format: 'qcow2',
    words: ['qcow2', '-o', 'cluster_size=128k,lazy_refcounts=on,compression_type=zstd,refcount_bits=32,extended_l2=on'],
    says: {
      version: 3,
      'cluster size': 128 * 1024,
      'lazy refcounts': true,
      'compression type': 'zstd',
      'refcount bits': 32,
      'extended L2': true,
    },
  },
  { name: 'an old qcow2', format: 'qcow2', words: ['qcow2', '-o', 'compat=0.10'], says: { version: 2, 'cluster size': 65536 } },
  {
    name: 'a qed',
    format: 'qed',
    words: ['qed', '-o', 'cluster_size=32k'],
    says: { 'cluster size': 32768, 'needs check': false },
  },
  {
    name: 'a vmdk',
    format: 'vmdk',
    words: ['vmdk', '-o', 'adapter_type=lsilogic,hwversion=11'],
    says: {
      'create type': 'monolithicSparse',
      'adapter type': 'lsilogic',
      'virtual hardware version': '11',
      'grain size': 65536,
      compressed: false,
    },
  },
  {
    name: 'a streamOptimized vmdk',
    format: 'vmdk',
    words: ['vmdk', '-o', 'subformat=streamOptimized'],
    says: { 'create type': 'streamOptimized', compressed: true },
  },
  {
    name: 'a fixed vhd',
    format: 'vhd',
    words: ['vpc', '-o', 'subformat=fixed,force_size=on'],
    says: { type: 'fixed', 'creator host': 'Wi2k' },
  },
  { name: 'a dynamic vhd', format: 'vhd', words: ['vpc'], says: { type: 'dynamic', 'block size': 2 * MiB } },
  {
    name: 'a vhdx',
    format: 'vhdx',
    words: ['vhdx', '-o', 'block_size=8M'],
    says: { type: 'dynamic', 'block size': 8 * MiB, 'logical sector size': 512, 'log to be replayed': false },
  },
  { name: 'a vdi', format: 'vdi', words: ['vdi', '-o', 'static=on'], says: { type: 'static', 'block size': MiB, blocks: 4 } },
  { name: 'a ploop', format: 'ploop', words: ['parallels'], says: { 'cluster size': MiB, 'in use': false } },
]
for (const { name, format, words, says } of made) {
  test(`the headers of ${name} are told of`, { skip: lacking('qemu-img') }, async (t) => {
    const path = await scratch(t)
    await run('qemu-img', 'create', '-q', '-f', ...words, path('disk'), '4M')
    const file = await openFileSource(path('disk'))
    const facts = asObject((await formatNamed(format).facts?.(checked(file, 'file'))) ?? [])
    for (const [fact, value] of Object.entries(says)) assert.deepEqual(facts[fact], value, fact)
    await file.close()
  })
}

test('of a difference its parent is told, which is not there', { skip: lacking('qemu-img') }, async (t) => {
  const path = await scratch(t)
  await run('qemu-img', 'create', '-q', '-f', 'raw', path('base'), '4M')
  for (const [format, name] of [
    ['qcow2', 'backing file'],
    ['qed', 'backing file'],
    ['vmdk', 'parent'],
  ] as const) {
    const isVmdk = format === 'vmdk'
    if (isVmdk) await run('qemu-img', 'create', '-q', '-f', 'vmdk', path('base.vmdk'), '4M')
    const [base, kind] = isVmdk ? ['base.vmdk', 'vmdk'] : ['base', 'raw']
    await run('sh', '-c', `cd ${path('')} && qemu-img create -q -f ${format} -b ${base} -F ${kind} child`)
    const file = await openFileSource(path('child'))
    await assert.rejects(formatNamed(format).open(file), { details: { format, reason: 'external-reference' } })
    assert.equal(asObject((await formatNamed(format).facts?.(file)) ?? [])[name], base)
    await file.close()
  }
})

test('what we write tells the same of itself each time, and every format but raw tells something', async () => {
  const disk = memorySource(4 * MiB, [{ offset: MiB, bytes: new Uint8Array(MiB).fill(1) }])
  for (const { name, writers, facts } of formats) {
    if (writers.length === 0) continue
    const told = (await facts?.(await wrapDisk(name, disk))) ?? []
    assert.equal(told.length > 1, name !== 'raw', name)
    assert.deepEqual((await facts?.(await wrapDisk(name, disk))) ?? [], told)
  }
})

test('headers that lie are refused with a reason, or told of as they are', async () => {
  const cut = [smallQed(), smallParallels()].map((bytes) => bytesSource(bytes.subarray(0, 100)))
  const files = [...hostileCases().map(({ file }) => file), ...cut]
  for (const file of files) {
    for (const name of openableFormats) {
      const driver = formats.find((format) => format.name === name)
      await driver?.facts?.(checked(file, 'file')).catch((error: unknown) => {
        if (!isServiceError(error)) throw error
      })
    }
  }
})
