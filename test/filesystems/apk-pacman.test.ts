import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { apk } from '../../src/disk/guest/software/apk.ts'
import { pacman } from '../../src/disk/guest/software/pacman.ts'
import { missingTool } from '../peers/command.ts'
import { withTree } from './guest-tree.ts'

const skip = missingTool('mke2fs')

test('packages of apk', { skip }, async () => {
  const installed = [
    'C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nS:400\nI:667648\nT:the musl c library\no:musl\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\nZ:Q1x=\n',
    'P:libcrypto3\nV:3.3.0-r2\nA:x86_64\nI:4575232\no:openssl\nF:etc\nM:0:0:755\n',
    'P:.build-deps\nV:20240101.1\nA:noarch\nI:many\nF:\n',
    'P:no-version\nA:x86_64\n',
    'T:nothing\n',
    'P:evil\r\nV:$(reboot)<script>\x1b[2J\r\n',
  ]
  const found = await withTree({ 'lib/apk/db/installed': installed.join('\n') }, (tree) => apk.read(tree))
  assert.deepEqual(
    found?.packages.map(({ name, version, architecture, source, installedBytes }) => [
      name,
      version,
      architecture,
      source?.name ?? null,
      installedBytes,
    ]),
    [
      ['musl', '1.2.5-r0', 'x86_64', null, 667648],
      ['libcrypto3', '3.3.0-r2', 'x86_64', 'openssl', 4575232],
      ['.build-deps', '20240101.1', 'noarch', null, null],
      ['evil', '$(reboot)<script>\x1b[2J', null, null, null],
    ],
  )
  assert.deepEqual(found.notes, [
    '/lib/apk/db/installed: a package without a version: no-version',
    '/lib/apk/db/installed: a package without a name: ',
  ])
  assert.equal(await withTree({ 'etc/passwd': '' }, (tree) => apk.read(tree)), undefined)
  const usr = await withTree({ 'usr/lib/apk/db/installed': installed[0]! }, (tree) => apk.read(tree))
  assert.equal(usr?.packages.length, 1)
  const endless = withTree({ 'lib/apk/db/installed': `P:${'x'.repeat(3_000_000)}` }, (tree) => apk.read(tree))
  await assert.rejects(endless, { code: 'too-large' })
})

const described = (name: string, version: string, more = '') =>
  `%NAME%\n${name}\n\n%VERSION%\n${version}\n\n%DESC%\nwhat %NAME% is\n\n%ARCH%\nx86_64\n\n%SIZE%\n4096\n\n${more}`

test('packages of pacman, as pacman -Q says', { skip: skip || missingTool('pacman') }, async () => {
  const local: Record<string, string> = {
    ALPM_DB_VERSION: '9\n',
    'glibc-2.39-1/desc': described('glibc', '2.39-1', '%BASE%\nglibc\n'),
    'gcc-libs-1:14.1.0-2/desc': described('gcc-libs', '1:14.1.0-2', '%BASE%\ngcc\n\n%DEPENDS%\nglibc>=2.27\n'),
    'zz-1-1/desc': described('zz', '1-1'),
  }
  const folder = mkdtempSync(join(tmpdir(), 'imprint-pacman-'))
  try {
    const files: Record<string, string> = {}
    for (const [path, text] of Object.entries(local)) {
      mkdirSync(dirname(join(folder, 'local', path)), { recursive: true })
      writeFileSync(join(folder, 'local', path), text)
      if (path.endsWith('/desc')) writeFileSync(join(folder, 'local', path.replace('desc', 'files')), '')
      files[`var/lib/pacman/local/${path}`] = text
    }
    writeFileSync(join(folder, 'conf'), '[options]\nArchitecture = auto\n')
    const words = ['-Q', '--dbpath', folder, '--config', join(folder, 'conf')]
    const said = execFileSync('pacman', words, { encoding: 'utf8', stdio: 'pipe' }).trim().split('\n')
    const found = await withTree(files, (tree) => pacman.read(tree))
    assert.deepEqual(found?.notes, [])
    assert.deepEqual(found.packages.map(({ name, version }) => `${name} ${version}`).sort(), said.sort())
    assert.deepEqual(
      found.packages.map(({ source }) => source?.name),
      ['gcc', undefined, undefined],
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('packages of pacman that are cut off hide no others', { skip }, async () => {
  const files = {
    'var/lib/pacman/local/empty-1-1/desc': '',
    'var/lib/pacman/local/none-1-1/files': '',
    'var/lib/pacman/local/whole-1-1/desc': described('whole', '1-1').replaceAll('\n', '\r\n'),
    'var/lib/pacman/local/large-1-1/desc': 'x'.repeat(2_000_000),
  }
  const found = await withTree(files, (tree) => pacman.read(tree))
  assert.deepEqual(
    found?.packages.map(({ name }) => name),
    ['whole'],
  )
  assert.equal(found.notes.length, 3)
  assert.match(found.notes.join(), /no desc/)
})
