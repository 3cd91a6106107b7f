import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { dpkg } from '../../src/disk/guest/software/dpkg.ts'
import { compareDebian } from '../../src/disk/guest/software/versions/debian.ts'
import { command, missingTool } from '../peers/command.ts'
import { numbersOf } from './aged-tree.ts'
import { withTree } from './guest-tree.ts'

const skip = missingTool('dpkg-query', 'mke2fs')

test('packages are those that dpkg-query says, every field', { skip }, async () => {
  const fields = ['Package', 'Version', 'Architecture', 'source:Package', 'source:Version', 'Installed-Size', 'db:Status-Status']
  const said = execFileSync('dpkg-query', ['-W', `-f=${fields.map((field) => `\${${field}}`).join('\\t')}\\n`], {
    encoding: 'utf8',
  })
  const theirs = said
    .trim()
    .split('\n')
    .map((line) => line.split('\t'))
    .filter((words) => words[6] === 'installed')
    .map((words) => words.slice(0, 6).join(' '))
  assert.ok(theirs.length > 100)
  const ours = await withTree({ 'var/lib/dpkg/status': readFileSync('/var/lib/dpkg/status') }, (tree) => dpkg.read(tree))
  assert.deepEqual(ours?.notes, [])
  const lines = ours.packages.map(({ name, version, architecture, source, installedBytes }) =>
    [
      name,
      version,
      architecture,
      source?.name ?? name,
      source?.version ?? version,
      installedBytes === null ? '' : installedBytes / 1024,
    ].join(' '),
  )
  assert.deepEqual(lines.sort(), theirs.sort())
})

test('packages that are gone, cut off or told twice', { skip }, async () => {
  const status = [
    'Package: here\nStatus: install ok installed\nVersion: 1',
    'Package: gone\nStatus: deinstall ok config-files\nVersion: 1',
    'Package: half\nStatus: install reinstreq half-configured\nVersion: 2\nDescription: x\n Version: 9',
    'Status: install ok installed\nVersion: 3',
    'Package: late\r\nStatus: install ok installed\r\nVersion: $(reboot)<script>\r',
  ]
  const files = {
    'var/lib/dpkg/status': status.join('\n\n'),
    'var/lib/dpkg/status.d/tiny': 'Package: tiny\nVersion: 4\n',
    'var/lib/dpkg/status.d/tiny.md5sums': 'x',
  }
  const found = await withTree(files, (tree) => dpkg.read(tree))
  assert.deepEqual(
    found?.packages.map(({ name, version }) => [name, version]),
    [
      ['here', '1'],
      ['half', '2'],
      ['late', '$(reboot)<script>'],
      ['tiny', '4'],
    ],
  )
  assert.deepEqual(found.notes, ['/var/lib/dpkg/status: a package without a name: 3'])
  assert.equal(await withTree({ 'etc/passwd': '' }, (tree) => dpkg.read(tree)), undefined)
})

test('a line without an end is refused', { skip }, async () => {
  const reading = withTree({ 'var/lib/dpkg/status': `Package: ${'x'.repeat(3_000_000)}` }, (tree) => dpkg.read(tree))
  await assert.rejects(reading, { code: 'too-large' })
})

test('versions are ordered as dpkg orders them', { skip: missingTool('dpkg') }, async () => {
  const random = numbersOf(11)
  const pieces = ['0', '1', '2', '10', '09', 'a', 'b', 'rc', '~', '+', '.', '-', '~~', 'deb12u', ':', 'Z']
  const version = () => {
    const text = Array.from({ length: 1 + Math.floor(random() * 6) }, () => pieces[Math.floor(random() * pieces.length)]).join('')
    return `${random() < 0.2 ? `${Math.floor(random() * 3)}:` : ''}${Math.floor(random() * 3)}${text.replaceAll(':', '')}`
  }
  for (let count = 0; count < 250; count += 1) {
    const [a, b] = [version(), version()]
    if (/-$/.test(a) || /-$/.test(b)) continue // no version: dpkg takes none with an empty revision
    const ours = Math.sign(compareDebian(a, b))
    const said = await command(['dpkg', '--compare-versions', a, ours === 0 ? 'eq' : ours < 0 ? 'lt' : 'gt', b])
    assert.equal(said.code, 0, `${a} ${ours} ${b}: ${said.stderr}`)
    assert.equal(Math.sign(compareDebian(b, a)), -ours || 0)
  }
})
