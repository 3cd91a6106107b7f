import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, randomDisk } from '../../../test/fixtures/disk/disks.ts'
import { hostileCases } from '../../../test/fixtures/disk/hostile.ts'
import { bytesSource } from '../block/memory-source.ts'
import {
  diskFormats,
  formatNamed,
  formats,
  openImage,
  plainFormats,
  recognise,
  suggestedFormat,
  verifyDeclared,
  wrapDisk,
} from './index.ts'

const disk = randomDisk(2_000_000 - 128, 6, 8)
const written = formats.filter(({ writers }) => writers.length > 0)

test('a disk goes into every format and comes out the same', async () => {
  for (const { name } of written) {
    const again = await openImage(name, await wrapDisk(name, disk))
    const padded = name === 'raw' ? disk.size : Math.ceil(disk.size / 512) * 512
    assert.equal(again.size, padded, name)
    assert.deepEqual(await again.read(0, disk.size), await disk.read(0, disk.size), name)
  }
})

test('wrapping the same disk twice gives the same bytes', async () => {
  for (const { name } of written) {
    assert.equal(
      await digestOf(await wrapDisk(name, disk)),
      await digestOf(await wrapDisk(name, randomDisk(disk.size, 6, 8))),
      name,
    )
  }
})

test('formats that are only read say so when they are to be written', async () => {
  for (const { name } of formats.filter((each) => !written.includes(each))) {
    await assert.rejects(wrapDisk(name, disk), { code: 'unsupported', message: /it can only be read/ })
  }
})

test('what every writer makes is recognised as what it is, and nothing is said against it', async () => {
  for (const { name, writers } of formats) {
    for (const writer of writers) {
      const file =
        'wrap' in writer ? await writer.wrap(disk) : bytesSource(Buffer.concat(await Array.fromAsync(writer.pack(disk))))
      const recognition = await recognise(file)
      assert.equal(suggestedFormat(recognition), name, writer.subformat)
      for (const { refusal } of recognition.found) assert.equal(refusal, null, `${name} ${writer.subformat}`)
    }
  }
})

test('discs and Amazon parts are shown as they are', async () => {
  for (const name of ['iso', 'ami', 'ari', 'aki']) {
    assert.equal(await digestOf(await openImage(name, disk)), await digestOf(disk))
    assert.throws(() => formatNamed(name), { code: 'unsupported', message: /qcow2, .*raw can/ })
  }
})

test('formats that are recognised only say so when they are opened', async () => {
  for (const name of diskFormats.filter((each) => !plainFormats.includes(each) && !formats.some(({ name }) => name === each))) {
    await assert.rejects(openImage(name, disk), { code: 'unsupported', message: new RegExp(name) })
  }
})

test('a format is suggested for what can be declared, and none for the rest', async () => {
  const suggested = async (bytes: Uint8Array) => suggestedFormat(await recognise(bytesSource(bytes)))
  assert.equal(suggestedFormat(await recognise(await wrapDisk('qcow2', disk))), 'qcow2')
  assert.equal(await suggested(new Uint8Array(5000)), 'raw')
  assert.equal(await suggested(Uint8Array.of(0x1f, 0x8b, 8, 0, 0)), null)
  assert.equal(await suggested(Buffer.concat([Buffer.from('QED\0'), Buffer.alloc(600)])), 'qed')
  assert.equal(await suggested(Buffer.concat([Buffer.from('Bochs Virtual HD Image'), Buffer.alloc(600)])), null)
})

test('every format that can be opened can be declared, and is what is found', async () => {
  for (const { name } of formats) assert.ok((diskFormats as readonly string[]).includes(name), name)
  for (const { name } of written) verifyDeclared(name, await recognise(await wrapDisk(name, disk)), 'bare')
})

test('a size that recognition tells is the size of the disk', async () => {
  let told = 0
  for (const { declared, file } of hostileCases()) {
    const found = (await recognise(file)).found.find(({ diskFormat }) => diskFormat === declared)
    const read = await openImage(declared, file).catch(() => undefined)
    if (!read || !found || found.virtualBytes === null) continue
    assert.equal(found.virtualBytes, read.size)
    told += 1
  }
  for (const { name, writers } of written) {
    for (const writer of writers) {
      if (!('wrap' in writer) || name === 'raw') continue
      const file = await writer.wrap(disk)
      const [found] = (await recognise(file)).found
      assert.equal(found?.virtualBytes, (await openImage(name, file)).size, `${name} ${writer.subformat}`)
    }
  }
  assert.ok(told > 20, `${told} files`)
})

test('what a format has no use for is refused', async () => {
  for (const { name, writers, hasParts, snapshots } of formats) {
    const [writer] = writers
    if (!writer || !('wrap' in writer)) continue
    const file = await writer.wrap(disk)
    const parts = new Map([['other', bytesSource(new Uint8Array(512))]])
    if (!hasParts) await assert.rejects(openImage(name, file, { parts }), { code: 'invalid-image' }, name)
    const refusal = { code: snapshots ? 'not-found' : 'invalid-image' }
    await assert.rejects(openImage(name, file, { snapshot: 'nope' }), refusal, name)
  }
})
