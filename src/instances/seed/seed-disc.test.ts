import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { lacking, run, scratch } from '../../../test/fixtures/disk/tools.ts'
import { type SeedFiles, seedDisc } from './seed-disc.ts'

const seed: SeedFiles = {
  metaData: '{"instance-id": "7"}\n',
  userData: Buffer.from(`#cloud-config\n# ${'é'.repeat(3000)}\n`),
  networkConfig: 'version: 2\n',
  vendorData: '',
}

test('isoinfo reads the label and every file, by Rock Ridge and by Joliet', { skip: lacking('isoinfo') }, async (context) => {
  const path = (await scratch(context))('seed.iso')
  await writeFile(path, seedDisc(seed))
  const described = await run('isoinfo', '-d', '-i', path)
  assert.match(described, /^Volume id: cidata$/m)
  assert.match(described, /Joliet with UCS level 3 found/)
  assert.match(described, /Rock Ridge signatures version 1 found/)
  for (const extension of ['-R', '-J']) {
    const list = await run('isoinfo', extension, '-f', '-i', path)
    const names = list.replaceAll(';1', '').trim().split('\n') // isoinfo shows Joliet's versions, guests do not
    assert.deepEqual(names.sort(), ['/meta-data', '/network-config', '/user-data', '/vendor-data'])
    for (const [name, text] of [
      ['/meta-data', seed.metaData],
      ['/user-data', Buffer.from(seed.userData).toString()],
      ['/network-config', seed.networkConfig],
      ['/vendor-data', ''],
    ] as const) {
      assert.equal(
        await run('isoinfo', extension, '-x', extension === '-J' ? `${name};1` : name, '-i', path),
        text,
        `${extension} ${name}`,
      )
    }
  }
  const modes = await run('isoinfo', '-R', '-l', '-i', path)
  assert.match(modes, /^-r-{8}\s+1\s+0\s+0\s+21.* meta-data\s*$/m)
})

test('plain ISO 9660 has short names', { skip: lacking('isoinfo') }, async (context) => {
  const path = (await scratch(context))('seed.iso')
  await writeFile(path, seedDisc({ ...seed, vendorData: null, networkConfig: null }))
  const names = (await run('isoinfo', '-f', '-i', path)).trim().split('\n')
  assert.deepEqual(names, ['/METADATA.;1', '/USERDATA.;1'])
})

test('the same files give the same bytes, in whole sectors, with nothing else in them', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 5000 }), fc.uint8Array({ maxLength: 5000 }), (metaData, userData) => {
      const files = { metaData, userData, networkConfig: null, vendorData: null }
      const [one, two] = [seedDisc(files), seedDisc(files)]
      assert.equal(Buffer.compare(one, two), 0)
      assert.equal(one.length % 2048, 0)
      assert.equal(
        Buffer.from(one)
          .toString('latin1', 16 * 2048 + 40, 16 * 2048 + 72)
          .trim(),
        'cidata',
      )
    }),
    { numRuns: 50 },
  )
})
