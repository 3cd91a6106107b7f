import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { deflateSync } from 'node:zlib'
import { ServiceError } from '../../src/base/errors.ts'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { checked } from '../../src/disk/block/checked.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { java } from '../../src/disk/guest/software/languages/java.ts'
import type { LanguageReader } from '../../src/disk/guest/software/languages/language-reader.ts'
import { languagePackages } from '../../src/disk/guest/software/languages/languages.ts'
import { node } from '../../src/disk/guest/software/languages/node.ts'
import { programs } from '../../src/disk/guest/software/languages/programs.ts'
import { python } from '../../src/disk/guest/software/languages/python.ts'
import { Notes } from '../../src/disk/guest/software/notes.ts'
import { missingTool } from '../peers/command.ts'
import { numbersOf } from './aged-tree.ts'
import { elfOf, goInfo } from './elf-file.ts'
import { withTree } from './guest-tree.ts'

const skip = missingTool('mke2fs')

async function packagesOf(reader: LanguageReader, bytes: Uint8Array, path = '/x'): Promise<string[]> {
  const found = await reader.read(bytesSource(bytes), path, new Notes())
  return found.map(({ kind, name, version }) => `${kind} ${name} ${version}`)
}

test('Python packages are those that importlib.metadata finds', { skip: skip || missingTool('python3') }, async () => {
  const folder = '/usr/lib/python3/dist-packages'
  const program = `import importlib.metadata as m\nfor d in m.distributions(path=['${folder}']): print(d.metadata['Name'], d.version)`
  const said = execFileSync('python3', ['-c', program], { encoding: 'utf8' }).trim().split('\n').filter(Boolean)
  const files: Record<string, Buffer> = {}
  for (const name of readdirSync(folder)) {
    for (const inner of ['METADATA', 'PKG-INFO', '']) {
      const path = join(folder, name, inner)
      if (/\.(dist|egg)-info$/.test(name) && existsSync(path) && statSync(path).isFile())
        files[path.slice(1)] = readFileSync(path)
    }
  }
  const found = await withTree({ ...files, 'opt/none.txt': '' }, (tree) => languagePackages(tree))
  assert.deepEqual(found.notes, [])
  assert.deepEqual(found.packages.map(({ name, version }) => `${name} ${version}`).sort(), said.sort())
})

test('packages of Node and Ruby, and none of what is inside them', { skip }, async () => {
  const npm = (name: string, version: string) => JSON.stringify({ name, version, dependencies: { other: '1' } })
  const files = {
    'srv/app/package.json': npm('app', '0.0.1'),
    'srv/app/node_modules/express/package.json': npm('express', '4.19.2'),
    'srv/app/node_modules/express/lib/package.json': npm('inside', '1'),
    'srv/app/node_modules/express/node_modules/@scope/qs/package.json': npm('@scope/qs', '6.11.0'),
    'srv/app/node_modules/kind/package.json': '{"type":"module"}',
    'srv/app/node_modules/broken/package.json': '{"name":',
    'srv/app/node_modules/deep/package.json': '['.repeat(100_000),
    'usr/share/nodejs/semver/package.json': npm('semver', '7.6.0'),
    'var/lib/gems/3.1.0/specifications/nokogiri-1.15.4-x86_64-linux.gemspec': '`reboot`',
    'var/lib/gems/3.1.0/specifications/rack-test-2-1.0.rc1.gemspec': '',
    'var/lib/gems/3.1.0/specifications/default/json-2.6.1.gemspec': '',
    'proc/1/node_modules/x/package.json': npm('x', '1'),
  }
  const found = await withTree(files, (tree) => languagePackages(tree))
  assert.deepEqual(
    found.packages.map(({ kind, name, version }) => `${kind} ${name} ${version}`),
    [
      'npm @scope/qs 6.11.0',
      'npm express 4.19.2',
      'npm semver 7.6.0',
      'gem json 2.6.1',
      'gem nokogiri 1.15.4',
      'gem rack-test-2 1.0.rc1',
    ],
  )
  assert.equal(found.notes.length, 2)
  assert.match(found.notes.join(), /broken\/package\.json cannot be read as a package of Node: it is no JSON/)
})

const modules = [
  'path\texample.org/app',
  'mod\texample.org/app\t(devel)\t',
  'dep\tgithub.com/a/b\tv1.2.3\th1:x=',
  'dep\tgolang.org/x/net\tv0.1.0\th1:x=',
  '=>\tgolang.org/fork/net\tv0.2.0\th1:x=',
  'build\tCGO_ENABLED=0',
  '',
].join('\n')
const builtFrom = [
  'golang stdlib 1.22.1',
  'golang example.org/app (devel)',
  'golang github.com/a/b v1.2.3',
  'golang golang.org/fork/net v0.2.0',
]

test('modules of Go programs, with texts in place and by pointers', async () => {
  assert.deepEqual(
    await packagesOf(programs, elfOf({ '.text': Buffer.alloc(5000), '.go.buildinfo': goInfo('go1.22.1', modules) })),
    builtFrom,
  )
  const texts = Buffer.alloc(4096)
  const info = Buffer.alloc(32)
  const base = 0x400000 + 64
  info.write('\xff Go buildinf:\x08\0', 'latin1')
  const marked = `${'0'.repeat(16)}${modules}${'1'.repeat(16)}`
  for (const [index, text] of ['go1.22.1', marked].entries()) {
    texts.writeBigUInt64LE(BigInt(base + 64 + index * 64), index * 16)
    texts.writeBigUInt64LE(BigInt(text.length), index * 16 + 8)
    texts.write(text, 64 + index * 64, 'latin1')
    info.writeBigUInt64LE(BigInt(base + index * 16), 16 + index * 8)
  }
  assert.deepEqual(await packagesOf(programs, elfOf({ '.data': texts, '.go.buildinfo': info })), builtFrom)
  info.writeBigUInt64LE(2n ** 60n, 16)
  await assert.rejects(packagesOf(programs, elfOf({ '.data': texts, '.go.buildinfo': info })), /points at/)
})

test('a Go program of Debian', { skip: missingTool('restic') }, async () => {
  const found = await packagesOf(programs, readFileSync('/usr/bin/restic'))
  assert.match(found[0] ?? '', /^golang stdlib 1\.\d+/)
})

test('crates of Rust programs', async () => {
  const list = {
    packages: [
      { name: 'app', version: '0.1.0', source: 'local', root: true },
      { name: 'serde', version: '1.0.1', source: 'crates.io' },
      { name: 'cc', version: '1.0.0', source: 'crates.io', kind: 'build' },
      { name: 7, version: null },
    ],
  }
  const section = deflateSync(JSON.stringify(list))
  assert.deepEqual(await packagesOf(programs, elfOf({ '.dep-v0': section })), ['cargo app 0.1.0', 'cargo serde 1.0.1'])
  const bomb = deflateSync(Buffer.alloc(2 ** 26))
  await assert.rejects(packagesOf(programs, elfOf({ '.dep-v0': bomb })), /cannot be unpacked/)
  await assert.rejects(packagesOf(programs, elfOf({ '.dep-v0': deflateSync('{"packages":{}}') })), /no list/)
})

/** A ZIP of these files, by zip itself. */
function zipOf(files: Readonly<Record<string, string | Uint8Array>>, ...options: string[]): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-zip-'))
  try {
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, 'in', name)), { recursive: true })
      writeFileSync(join(folder, 'in', name), content)
    }
    execFileSync('zip', ['-q', '-r', ...options, '../out.zip', '.'], { cwd: join(folder, 'in') })
    return readFileSync(join(folder, 'out.zip'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const pom = (group: string, name: string, version: string) => ({
  [`META-INF/maven/${group}/${name}/pom.properties`]: `#made\r\nversion=${version}\r\ngroupId=${group}\r\nartifactId = ${name}\r\n`,
})
const manifest = (text: string) => ({
  'META-INF/MANIFEST.MF': `Manifest-Version: 1.0\r\n${text}\r\n\r\nName: other\r\nImplementation-Version: 9\r\n`,
})

test('jars, and jars in them', { skip: missingTool('zip') }, async () => {
  const guava = zipOf(manifest('Bundle-SymbolicName: com.google.guava;x=y\r\nBundle-Version: 33.0.0.j\r\n re'))
  const shaded = zipOf({ ...pom('org.a', 'one', '1.0'), ...pom('org.b', 'two', '2.0'), ...manifest('Implementation-Title: x') })
  assert.deepEqual(await packagesOf(java, guava, '/lib/guava.jar'), ['maven com.google.guava 33.0.0.jre'])
  assert.deepEqual(await packagesOf(java, guava, '/lib/guava-33.0.0-jre.jar'), ['maven guava 33.0.0-jre'])
  assert.deepEqual((await packagesOf(java, shaded)).sort(), ['maven org.a:one 1.0', 'maven org.b:two 2.0'])
  const inner = { 'BOOT-INF/lib/guava.jar': guava, 'BOOT-INF/lib/shaded-1.jar': shaded, 'BOOT-INF/lib/bad.jar': 'PK' }
  for (const options of [['-0'], ['-9']]) {
    const app = zipOf({ ...pom('org.example', 'app', '3'), ...inner }, ...options)
    const script = Buffer.concat([Buffer.from('#!/bin/sh\nexec java -jar "$0"\n'), app])
    for (const bytes of [app, script]) {
      const notes = new Notes()
      const found = await java.read(bytesSource(bytes), '/srv/app.jar', notes)
      assert.deepEqual(found.map(({ name, version, path }) => `${name} ${version} ${path}`).sort(), [
        'com.google.guava 33.0.0.jre /srv/app.jar!/BOOT-INF/lib/guava.jar',
        'org.a:one 1.0 /srv/app.jar!/BOOT-INF/lib/shaded-1.jar',
        'org.b:two 2.0 /srv/app.jar!/BOOT-INF/lib/shaded-1.jar',
        'org.example:app 3 /srv/app.jar',
      ])
      assert.deepEqual(notes.list, ['/srv/app.jar!/BOOT-INF/lib/bad.jar cannot be read: it has no end of a ZIP archive'])
    }
  }
  let deep = guava
  for (let depth = 0; depth < 5; depth += 1) deep = zipOf({ 'lib/next.jar': deep })
  const notes = new Notes()
  await java.read(bytesSource(deep), '/deep.jar', notes)
  assert.match(notes.list.join(), /3 archives deep/)
})

test('a jar of jars that lie over each other ends', { skip: missingTool('zip') }, async () => {
  const app = zipOf({ 'a.jar': zipOf(pom('org.a', 'one', '1.0')) }, '-0')
  const end = app.length - 22
  const [bytes, start] = [app.readUInt32LE(end + 12), app.readUInt32LE(end + 16)]
  const member = app.subarray(start, start + bytes)
  const count = 20_000
  const tail = Buffer.from(app.subarray(end))
  tail.writeUInt16LE(count, 8)
  tail.writeUInt16LE(count, 10)
  tail.writeUInt32LE(bytes * count, 12)
  const many = Buffer.concat([app.subarray(0, start), ...Array.from({ length: count }, () => member), tail])
  await assert.rejects(packagesOf(java, many, '/x.jar'), { code: 'too-large' })
})

test('texts that are made to be slow to search are read at once', async () => {
  const slow = [`Name: a${' '.repeat(60_000)}b`, '\n'.repeat(60_000), `${' '.repeat(30_000)}\nName:`.repeat(2)]
  for (const text of slow) await packagesOf(python, Buffer.from(text)).catch((error) => assert.equal(error.code, 'invalid-image'))
  await assert.rejects(packagesOf(node, Buffer.alloc(5 * 2 ** 20)), { code: 'too-large' })
})

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)

test('mutants of programs and jars are read or refused', { skip: missingTool('zip') }, async () => {
  const jar = zipOf({ ...pom('org.a', 'one', '1.0'), ...manifest('x: y'), 'lib/in.jar': zipOf(pom('org.b', 'two', '2'), '-0') })
  const kinds: readonly (readonly [LanguageReader, Buffer])[] = [
    [java, jar],
    [programs, elfOf({ '.go.buildinfo': goInfo('go1.22.1', modules), '.dep-v0': deflateSync('{"packages":[]}') })],
  ]
  const random = numbersOf(9)
  const below = (end: number) => Math.floor(random() * end)
  for (const [reader, bytes] of kinds) {
    for (let run = 0; run < RUNS / kinds.length; run += 1) {
      const mutant = Buffer.from(bytes)
      for (let pokes = 1 + below(4); pokes > 0; pokes -= 1) {
        const at = below(mutant.length)
        mutant.fill([0, 0xff, below(256)][below(3)]!, at, Math.min(mutant.length, at + [1, 2, 4][below(3)]!))
      }
      const end = below(10) === 0 ? below(mutant.length) : mutant.length
      const source: BlockSource = checked(bytesSource(mutant.subarray(0, end)), 'mutant')
      await reader.read(source, '/x.jar', new Notes()).catch((error) => {
        assert.ok(error instanceof ServiceError && error.code !== 'invalid-request', `${run}: ${error.stack}`)
      })
    }
  }
})
