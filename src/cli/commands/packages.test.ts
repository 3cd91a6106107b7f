import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lacking, scratch } from '../../../test/fixtures/disk/tools.ts'
import { answer, imprint } from '../disk-file/child.suite.ts'

const skip = lacking('mke2fs')
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

async function diskOf(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const path = await scratch(t)
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(path(`root/${name}`)), { recursive: true })
    await writeFile(path(`root/${name}`), text)
  }
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', path('root'), path('disk.raw'), '16384k'], { env, stdio: 'pipe' })
  return path('disk.raw')
}

const debian = 'ID=debian\nVERSION_ID=12\n'
const status =
  'Package: php8.2-fpm\nStatus: install ok installed\nVersion: 8.2.7-1\nArchitecture: amd64\nSource: php8.2\n\nPackage: evil\nStatus: install ok installed\nVersion: \x1b[2J\n'

test('packages are listed, for people, programs and scanners', { skip }, async (t) => {
  const express = '{"name":"express","version":"4.19.2"}'
  const disk = await diskOf(t, {
    'etc/os-release': debian,
    'var/lib/dpkg/status': status,
    'srv/node_modules/express/package.json': express,
  })
  const said = await imprint(['packages', disk])
  assert.equal(said.code, 0, said.stderr)
  assert.match(said.stdout, /^deb +php8\.2-fpm +8\.2\.7-1 +amd64 +php8\.2$/m)
  assert.match(said.stdout, /\\x1b\[2J/)
  assert.match(said.stdout, /^npm +express +4\.19\.2/m)
  const found = await answer('packages', disk, '--distribution-only')
  assert.deepEqual([found.packages.length, found.notes, found.failures], [2, [], []])
  const bill = await imprint(['packages', disk, '--sbom', 'cyclonedx'])
  assert.equal(
    JSON.parse(bill.stdout).components[0].purl,
    'pkg:deb/debian/php8.2-fpm@8.2.7-1?arch=amd64&distro=debian-12&upstream=php8.2',
  )
  assert.equal(bill.stdout, (await imprint(['packages', disk, '--sbom', 'cyclonedx'])).stdout)
  const other = JSON.parse((await imprint(['packages', disk, '--sbom', 'spdx'])).stdout)
  assert.deepEqual([other.spdxVersion, other.packages.length, other.name], ['SPDX-2.3', 4, 'disk.raw'])
})

test('a list that is not what is installed fails, with what it has', { skip }, async (t) => {
  const disk = await diskOf(t, { 'etc/os-release': debian, 'lib/apk/db/installed': 'P:musl\nV:1-r0\n' })
  const said = await imprint(['packages', disk])
  assert.equal(said.code, 1)
  assert.match(said.stdout, /^apk +musl/m)
  assert.match(said.stderr, /it is debian, and dpkg has no package/)
  const bill = await imprint(['packages', disk, '--sbom', 'cyclonedx'])
  assert.equal(bill.code, 1)
  assert.deepEqual(JSON.parse(bill.stdout).compositions, [{ aggregate: 'incomplete' }])
})
