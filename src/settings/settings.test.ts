import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { environmentName, flagName, readSettings, settingsTable } from './settings.ts'

const file = (content: string) => {
  const path = join(mkdtempSync(join(tmpdir(), 'imprint-settings-')), 'imprint.json')
  writeFileSync(path, content)
  return path
}

test('a flag wins over the environment, that over the file, that over the default', () => {
  const path = file('{"listen": "127.0.0.1:1", "region": "file", "tokenHours": 3}')
  const settings = readSettings({ listen: '127.0.0.1:3' }, { IMPRINT_LISTEN: '127.0.0.1:2', IMPRINT_REGION: 'environment' }, path)
  assert.equal(settings.listen, '127.0.0.1:3')
  assert.equal(settings.region, 'environment')
  assert.equal(settings.tokenHours, 3)
  assert.equal(settings.quotaImages, 50)
})

test('names follow from the key', () => {
  assert.equal(environmentName('maxImageBytes'), 'IMPRINT_MAX_IMAGE_BYTES')
  assert.equal(flagName('maxImageBytes'), '--max-image-bytes')
})

test('bytes are read with their unit', () => {
  assert.equal(readSettings({ memory: '1.5G' }, {}).memory, 1.5 * 2 ** 30)
  assert.equal(readSettings({ memory: '64MiB' }, {}).memory, 64 * 2 ** 20)
})

const refused: readonly [string, Parameters<typeof readSettings>, RegExp][] = [
  ['a port beyond 65535', [{ listen: '127.0.0.1:70000' }, {}], /--listen: takes host:port/],
  ['a word for a number', [{}, { IMPRINT_TOKEN_HOURS: 'soon' }], /IMPRINT_TOKEN_HOURS: takes a whole number from 1/],
  ['too little memory', [{ memory: '1K' }, {}], /--memory: takes bytes/],
  ['an unknown name in the file', [{}, {}, file('{"lissten": "x"}')], /unknown setting "lissten"/],
  ['a file that is no JSON', [{}, {}, file('listen = x')], /cannot read the settings file/],
  ['a file that is not there', [{}, {}, '/nonexistent/imprint.json'], /cannot read the settings file/],
  ['two hosts of one name', [{ instanceHosts: 'left=/a.sock,left=/b.sock' }, {}], /names a host twice/],
  ['one agent under two names', [{ instanceHosts: 'left=/srv/a.sock,right=/srv//a.sock' }, {}], /one agent under two names/],
  ['a scheme that is not HTTP', [{ publicUrl: 'ftp://x' }, {}], /--public-url: takes an http/],
]
for (const [name, args, says] of refused) {
  test(`${name} is refused, saying where it came from`, () => {
    assert.throws(() => readSettings(...args), { code: 'invalid-request', message: says })
  })
}

test('every default is one that its own parser takes', () => {
  for (const [name, { default: value, parse }] of Object.entries(settingsTable)) {
    if (value === '' || Array.isArray(value)) continue
    assert.deepEqual((parse as (text: string) => unknown)(String(value)), value, name)
  }
})
