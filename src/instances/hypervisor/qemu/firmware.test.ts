import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { scratch } from '../../../../test/fixtures/disk/tools.ts'
import { findFirmwares, firmwareFor } from './firmware.ts'

const description = (code: string, variables: string, features: readonly string[]) =>
  JSON.stringify({
    'interface-types': ['uefi'],
    mapping: {
      device: 'flash',
      executable: { filename: code, format: 'raw' },
      'nvram-template': { filename: variables, format: 'raw' },
    },
    targets: [{ architecture: 'x86_64', machines: ['pc-q35-*'] }],
    features,
  })

test('descriptions are read in order, and those of files that are not there, or of nothing, are left out', async (context) => {
  const at = await scratch(context)
  for (const folder of ['etc', 'usr']) await mkdir(at(folder))
  for (const file of ['code', 'own', 'variables']) await writeFile(at(file), '')
  await writeFile(at('usr/60-plain.json'), description(at('code'), at('variables'), ['acpi-s3']))
  await writeFile(at('etc/60-plain.json'), description(at('own'), at('variables'), []))
  await writeFile(
    at('usr/40-secure.json'),
    description(at('code'), at('variables'), ['secure-boot', 'enrolled-keys', 'requires-smm']),
  )
  await writeFile(at('usr/50-no-keys.json'), description(at('code'), at('variables'), ['secure-boot', 'requires-smm']))
  await writeFile(at('usr/10-gone.json'), description(at('gone'), at('variables'), []))
  await writeFile(at('usr/20-masked.json'), '')
  await writeFile(at('usr/30-other.json'), '{"mapping": {"device": "memory", "filename": "/x"}, "targets": [], "features": []}')
  const found = await findFirmwares([at('etc'), at('usr'), at('absent')])
  assert.deepEqual(
    found.map(({ codePath, secureBoot, needsSmm }) => [codePath === at('own'), secureBoot, needsSmm]),
    [
      [false, true, true],
      [false, false, true],
      [true, false, false],
    ],
  )
  const wanted = { architecture: 'x86_64', machineType: 'pc-q35-7.2', secureBoot: false }
  assert.equal(firmwareFor(found, wanted)?.codePath, at('own'))
  assert.equal(firmwareFor(found, { ...wanted, secureBoot: true })?.codePath, at('code'))
  assert.equal(firmwareFor(found, { ...wanted, machineType: 'pc-i440fx-7.2' }), undefined)
  assert.equal(firmwareFor(found, { ...wanted, architecture: 'aarch64' }), undefined)
})
