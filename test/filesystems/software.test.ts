import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cycloneDx, spdx } from '../../src/disk/guest/software/bill-of-materials/documents.ts'
import { purlOf } from '../../src/disk/guest/software/bill-of-materials/purl.ts'
import { readSoftware } from '../../src/disk/guest/software/index.ts'
import type { Package } from '../../src/disk/guest/software/package.ts'
import { missingTool } from '../peers/command.ts'
import { withTree } from './guest-tree.ts'

const skip = missingTool('mke2fs')
const debian = 'ID=debian\nVERSION_ID="12"\n'
const status = 'Package: php8.2-fpm\nStatus: install ok installed\nVersion: 8.2.7-1\nArchitecture: amd64\nSource: php8.2\n'

const read = (files: Record<string, string>) => withTree(files, (tree) => readSoftware({ tree }))

test('all packaging systems that are in use are read', { skip }, async () => {
  const found = await read({
    'etc/os-release': debian,
    'var/lib/dpkg/status': status,
    'lib/apk/db/installed': 'P:musl\nV:1-r0\n',
  })
  assert.deepEqual(
    found.packages.map(({ kind, name }) => `${kind} ${name}`),
    ['deb php8.2-fpm', 'apk musl'],
  )
  assert.deepEqual([found.failures, found.notes, found.operatingSystem?.distro], [[], [], 'debian'])
})

test('a known distribution without a package is a failure', { skip }, async () => {
  const systems: readonly (readonly [release: string, more: Record<string, string>, says: RegExp | null])[] = [
    [debian, {}, /it is debian, and dpkg has no package/],
    [debian, { 'var/lib/dpkg/status': '' }, /dpkg has no package/],
    [debian, { 'lib/apk/db/installed': 'P:musl\nV:1-r0\n' }, /dpkg has no package/],
    ['ID=mine\nID_LIKE="other fedora"\n', {}, /it is fedora, and rpm has no package/],
    ['ID=alpine\n', {}, /apk has no package/],
    ['ID=arch\n', {}, /pacman has no package/],
    ['ID=slackware\n', {}, null],
    ['ID=constructor\nID_LIKE=__proto__\n', {}, null],
  ]
  for (const [release, more, says] of systems) {
    const { failures } = await read({ 'etc/os-release': release, ...more })
    if (says === null) assert.deepEqual(failures, [])
    else assert.match(failures.map(({ message }) => message).join(), says)
  }
})

test('a database that cannot be read is a failure, and hides no other', { skip }, async () => {
  const found = await read({
    'etc/os-release': debian,
    'var/lib/dpkg/status': status,
    'var/lib/rpm/rpmdb.sqlite': 'x'.repeat(5000),
  })
  assert.equal(found.packages.length, 1)
  assert.deepEqual(
    found.failures.map(({ code, message }) => [code, message]),
    [
      [
        'invalid-image',
        'what rpm has installed cannot be read: /var/lib/rpm/rpmdb.sqlite: the rpm database has no "SQLite format 3" at its start',
      ],
    ],
  )
})

const plain = { architecture: null, source: null, installedBytes: null, path: '/x' } as const

test('package URLs', () => {
  const os = { distro: 'fedora', version: '40' }
  const cases: readonly (readonly [Package, string])[] = [
    [
      { ...plain, kind: 'rpm', name: 'bash', version: '1:5.2-1.fc40', architecture: 'x86_64' },
      'pkg:rpm/fedora/bash@5.2-1.fc40?arch=x86_64&distro=fedora-40&epoch=1',
    ],
    [
      { ...plain, kind: 'deb', name: 'libstdc++6', version: '1:2~a+b', source: { name: 'gcc', version: '12' } },
      'pkg:deb/fedora/libstdc%2B%2B6@1:2~a%2Bb?distro=fedora-40&upstream=gcc%4012',
    ],
    [{ ...plain, kind: 'npm', name: '@babel/core', version: '7.0.0' }, 'pkg:npm/%40babel/core@7.0.0'],
    [{ ...plain, kind: 'pypi', name: 'My_Package', version: '1' }, 'pkg:pypi/my-package@1'],
    [{ ...plain, kind: 'maven', name: 'org.a:b', version: '1' }, 'pkg:maven/org.a/b@1'],
    [{ ...plain, kind: 'golang', name: 'github.com/A/b', version: 'v1' }, 'pkg:golang/github.com/a/b@v1'],
    [{ ...plain, kind: 'cargo', name: "\ud800'", version: '<?&' }, 'pkg:cargo/%EF%BF%BD%27@%3C%3F%26'],
  ]
  for (const [each, url] of cases) assert.equal(purlOf(each, os), url)
})

const bill = {
  name: 'disk.qcow2',
  packages: [
    { ...plain, kind: 'deb', name: 'a', version: '1' },
    { ...plain, kind: 'deb', name: 'a', version: '1' },
    { ...plain, kind: 'npm', name: '<script>\x1b', version: '"' },
  ] as const,
  operatingSystem: { distro: 'debian', version: '12', name: 'Debian 12' },
  notes: ['something is missing'],
  toolVersion: '1.0.0',
}

// biome-ignore lint/suspicious/noExplicitAny: JSON
const asJson = (value: object): any => JSON.parse(JSON.stringify(value))

test('a CycloneDX document has what its schema asks for', () => {
  const document = asJson(cycloneDx(bill))
  assert.deepEqual(document, asJson(cycloneDx(bill)))
  assert.notEqual(document.serialNumber, asJson(cycloneDx({ ...bill, name: 'other' })).serialNumber)
  const { bomFormat, specVersion, version, serialNumber, components, metadata, compositions } = document
  assert.deepEqual([bomFormat, specVersion, version], ['CycloneDX', '1.6', 1])
  assert.match(serialNumber, /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  assert.equal(metadata.component.type, 'operating-system')
  assert.deepEqual(compositions, [{ aggregate: 'incomplete' }])
  const references = components.map((each: Record<string, string>) => each['bom-ref'])
  assert.equal(new Set(references).size, 3)
  for (const each of components) {
    assert.deepEqual(Object.keys(each), ['type', 'bom-ref', 'name', 'version', 'purl', 'properties'])
    assert.match(each.purl, /^pkg:[a-z]+\/\S+@\S+$/)
  }
})

test('an SPDX document has what its schema asks for', () => {
  const document = asJson(spdx(bill))
  assert.deepEqual(document, asJson(spdx(bill)))
  assert.deepEqual([document.spdxVersion, document.dataLicense, document.SPDXID], ['SPDX-2.3', 'CC0-1.0', 'SPDXRef-DOCUMENT'])
  assert.match(document.documentNamespace, /^https:\/\/[^#]+$/)
  assert.match(document.creationInfo.created, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  const ids: string[] = document.packages.map((each: { SPDXID: string }) => each.SPDXID)
  assert.equal(new Set(ids).size, 4)
  for (const each of document.packages) {
    assert.match(each.SPDXID, /^SPDXRef-[A-Za-z0-9.-]+$/)
    assert.deepEqual([each.downloadLocation, each.filesAnalyzed], ['NOASSERTION', false])
  }
  for (const { spdxElementId, relatedSpdxElement } of document.relationships) {
    assert.ok(ids.includes(spdxElementId) && ids.includes(relatedSpdxElement))
  }
  assert.equal(document.relationships.length, 3)
})
