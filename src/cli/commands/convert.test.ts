import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, rm, rmdir, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { randomDisk, writeSource } from '../../../test/fixtures/disk/disks.ts'
import { QCOW2_L2, smallQcow2, smallVmdk } from '../../../test/fixtures/disk/hostile.ts'
import { lacking, run as runTool, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { formats } from '../../disk/formats/index.ts'
import { answer, imprint, main, nameForQemu } from '../disk-file/child.suite.ts'

const skip = lacking('qemu-img')
const skipIo = lacking('qemu-img', 'qemu-io')
const DISK_BYTES = 24 * MiB

const forms = formats.flatMap(({ name, writers }) => writers.map(({ subformat }) => ({ name, form: `${name}:${subformat}` })))
for (const { name, form } of forms) {
  test(`a disk becomes ${form} and raw again: qemu-img reads the same, and holes stay holes`, { skip }, async (t) => {
    const path = await scratch(t)
    await writeSource(randomDisk(DISK_BYTES, 9, form.length), path('disk.raw'))
    const said = await answer('convert', path('disk.raw'), path('made'), '--to', form)
    assert.deepEqual([said.diskBytes, said.target.format], [DISK_BYTES, name])
    await runTool('qemu-img', 'compare', '-f', nameForQemu(name), '-F', 'raw', path('made'), path('disk.raw'))
    await answer('convert', path('made'), path('back.raw'), '--from', name)
    const [before, after] = [await readFile(path('disk.raw')), await readFile(path('back.raw'))]
    assert.ok(after.subarray(0, DISK_BYTES).equals(before))
    assert.ok(after.subarray(DISK_BYTES).every((byte) => byte === 0))
    const taken = (await stat(path('back.raw'))).blocks * 512
    assert.ok(taken <= (await stat(path('disk.raw'))).blocks * 512 + 9 * 2 * 65_536, `${taken} bytes are taken`)
    assert.deepEqual((await readdir(dirname(path('made')))).sort(), ['back.raw', 'disk.raw', 'made'])
  })
}

test('the same disk gives the same bytes; zeros that are data become holes, unless they are never looked for', {
  skip,
}, async (t) => {
  const path = await scratch(t)
  await writeFile(path('dense.raw'), Buffer.concat([randomBytes(MiB), Buffer.alloc(8 * MiB), randomBytes(70_000)]))
  await runTool('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', path('dense.raw'), path('sparse.raw'))
  await answer('convert', path('dense.raw'), path('a.qcow2'))
  await answer('convert', path('sparse.raw'), path('b.qcow2'))
  assert.ok((await readFile(path('a.qcow2'))).equals(await readFile(path('b.qcow2'))))
  assert.ok((await stat(path('a.qcow2'))).size < 2 * MiB)
  await answer('convert', path('dense.raw'), path('c.qcow2'), '--find-zeros', 'never', '--no-sync')
  assert.ok((await stat(path('c.qcow2'))).size > 9 * MiB)
  await truncate(path('dense.raw'), 64 * MiB)
  await answer('convert', path('dense.raw'), path('d.qcow2'))
  assert.ok((await stat(path('d.qcow2'))).size > 9 * MiB, 'who leaves holes has left out zeros')
  await answer('convert', path('dense.raw'), path('e.qcow2'), '--find-zeros', 'always')
  assert.ok((await stat(path('e.qcow2'))).size < 2 * MiB)
  assert.ok((await stat(path('c.qcow2'))).blocks * 512 < 2 * MiB, 'but not on the disk')
  for (const name of ['c.qcow2', 'd.qcow2', 'e.qcow2']) await answer('compare', path(name), path('dense.raw'))
})

test('a file that is there is kept, and replaced with --force when the new one is whole', async (t) => {
  const path = await scratch(t)
  await writeFile(path('disk.raw'), randomBytes(MiB))
  await writeFile(path('there.raw'), 'precious')
  await chmod(path('there.raw'), 0o640)
  await symlink('there.raw', path('link.raw'))
  const refused = await imprint(['convert', path('disk.raw'), path('there.raw')])
  assert.equal(refused.code, 5)
  assert.match(refused.stderr, /exists; .*--force/)
  await writeFile(path('bad.qcow2'), smallQcow2([20, 4, 63]))
  assert.equal((await imprint(['convert', path('bad.qcow2'), path('there.raw'), '--force'])).code, 1)
  assert.equal(await readFile(path('there.raw'), 'utf8'), 'precious')
  await answer('convert', path('disk.raw'), path('link.raw'), '--force')
  assert.ok((await readFile(path('there.raw'))).equals(await readFile(path('disk.raw'))))
  assert.equal((await stat(path('there.raw'))).mode & 0o777, 0o640)
  assert.ok((await lstat(path('link.raw'))).isSymbolicLink())
  await answer('convert', path('there.raw'), path('there.raw'), '--to', 'qcow2', '--force') // onto itself
  await answer('compare', path('there.raw'), path('disk.raw'))
})

const nowhere: readonly [string, (path: (name: string) => string) => readonly string[], number, RegExp][] = [
  ['a disk of this machine', (path) => ['convert', path('disk.raw'), path('device'), '--to', 'raw'], 1, /imprint deploy/],
  ['what is no file', (path) => ['convert', path('disk.raw'), '/dev/null', '--force', '--to', 'raw'], 1, /not a regular file/],
  ['a folder that is not there', (path) => ['convert', path('disk.raw'), path('no/x.raw')], 3, /does not exist/],
  ['a name that tells no format', (path) => ['convert', path('disk.raw'), path('x')], 2, /--to with one of .*qcow2/],
  ['a format that is not known', (path) => ['convert', path('disk.raw'), path('x'), '--to', 'floppy'], 1, /qcow2/],
  ['a form that is not known', (path) => ['convert', path('disk.raw'), path('x'), '--to', 'qcow2:x'], 1, /as plain/],
  ['standard output without a format', (path) => ['convert', path('disk.raw'), '-'], 2, /--to with one of/],
  ['a source that is not there', (path) => ['convert', path('absent'), path('x.raw')], 3, /does not exist/],
]
const isRoot = process.getuid?.() === 0 ? false : 'needs root'
for (const [what, words, code, says] of nowhere) {
  test(`a conversion to or from ${what} is refused`, {
    skip: what.startsWith('a disk') && (isRoot || lacking('mknod')),
  }, async (t) => {
    const path = await scratch(t)
    await writeFile(path('disk.raw'), randomBytes(4096))
    if (what.startsWith('a disk')) await runTool('mknod', path('device'), 'b', '7', '250')
    const before = await readdir(dirname(path('x')))
    const said = await imprint(words(path))
    assert.equal(said.code, code, said.stderr)
    assert.match(said.stderr, says)
    assert.deepEqual(await readdir(dirname(path('x'))), before)
  })
}

const hostile: readonly [string, () => Uint8Array, readonly string[], string][] = [
  ['a backing file', () => smallQcow2([8, 8, 0x200], [16, 4, 11], [0x200, '/etc/passwd']), [], 'external-reference'],
  ['another format than was said', () => smallQcow2(), ['--from', 'raw'], 'format-mismatch'],
  ['two formats', () => smallQcow2([510, 2, 0x55aa], [446, '\x80']), [], 'multiple-formats'],
  ['encryption', () => smallQcow2([32, 4, 2]), [], 'encrypted'],
  ['the end missing', () => smallQcow2().subarray(0, 0x38000), [], 'truncated'],
  ['a cluster used twice', () => smallQcow2([QCOW2_L2 + 8, 8, (1n << 63n) + 0x50000n]), [], 'overlap'],
  ['a parent somewhere else', () => smallVmdk('parentFileNameHint="/etc/passwd"\n'), [], 'external-reference'],
]
for (const [what, bytes, options, reason] of hostile) {
  test(`a file with ${what} is refused with its reason, and nothing is written`, async (t) => {
    const path = await scratch(t)
    await writeFile(path('source'), bytes())
    const said = await imprint(['convert', path('source'), path('out.raw'), '--json', ...options])
    assert.equal(said.code, 1, said.stderr)
    assert.equal(said.stdout, '')
    const { error } = JSON.parse(said.stderr.trim().split('\n').at(-1)!)
    assert.ok(['invalid-image', 'unsupported'].includes(error.code))
    assert.equal(error.details.reason, reason, error.message)
    assert.deepEqual(await readdir(dirname(path('x'))), ['source'])
  })
}

test('a disk goes to standard output, from its first byte to its last', { skip }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 5, 3), path('disk.raw'))
  const piped = `"$0" "$@" | cat > '${path('out.qcow2')}'`
  await runTool('sh', '-c', piped, process.execPath, main, 'convert', path('disk.raw'), '-', '--to', 'qcow2')
  await runTool('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path('out.qcow2'), path('disk.raw'))
})

test('a difference becomes whole with what it is based on; what does not belong to it is refused', {
  skip: skipIo,
}, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 9, 12), path('base.raw'))
  await runTool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', path('base.raw'), '-F', 'raw', path('mid.qcow2'))
  await runTool('qemu-io', '-c', 'write -P 7 1M 64k', path('mid.qcow2'))
  await runTool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', path('mid.qcow2'), '-F', 'qcow2', path('top.qcow2'))
  await runTool('qemu-io', '-c', 'write -P 9 5M 64k', '-c', 'write -z 2M 64k', path('top.qcow2'))
  await answer('convert', path('top.qcow2'), path('whole.qcow2'), '--parent', path('mid.qcow2'), '--parent', path('base.raw'))
  await runTool('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', path('top.qcow2'), path('whole.qcow2'))
  const unsaid = await imprint(['convert', path('top.qcow2'), path('x.raw')])
  assert.equal(unsaid.code, 1)
  assert.match(unsaid.stderr, /backing file/)
  assert.match(unsaid.stderr, /--parent/)
  for (const parents of [['mid.qcow2'], ['mid.qcow2', 'base.raw', 'base.raw']]) {
    const said = await imprint([
      'convert',
      path('top.qcow2'),
      path('x.raw'),
      ...parents.flatMap((name) => ['--parent', path(name)]),
    ])
    assert.equal(said.code, 1, said.stderr)
  }
  assert.ok(!(await readdir(dirname(path('x')))).includes('x.raw'))
})

test('a disk in several files is put together of those that are given', { skip }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 9, 13), path('disk.raw'))
  for (const [subformat, part] of [
    ['twoGbMaxExtentSparse', 'split-s001.vmdk'],
    ['monolithicFlat', 'split-flat.vmdk'],
  ] as const) {
    await runTool(
      'qemu-img',
      'convert',
      '-f',
      'raw',
      '-O',
      'vmdk',
      '-o',
      `subformat=${subformat}`,
      path('disk.raw'),
      path('split.vmdk'),
    )
    await answer('convert', path('split.vmdk'), path(`${subformat}.raw`), '--part', path(part))
    await answer('compare', path(`${subformat}.raw`), path('disk.raw'), '--strict')
    assert.equal((await imprint(['convert', path('split.vmdk'), path('x.raw')])).code, 1)
  }
})

test('the disk of an internal snapshot is had by its name and its id', { skip: skipIo }, async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(DISK_BYTES, 9, 14), path('disk.raw'))
  await runTool('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', path('disk.raw'), path('disk.qcow2'))
  await runTool('qemu-img', 'snapshot', '-c', 'before', path('disk.qcow2'))
  await runTool('qemu-io', '-c', 'write -P 7 1M 1M', path('disk.qcow2'))
  for (const wanted of ['before', '1']) {
    await answer('convert', path('disk.qcow2'), path(`${wanted}.raw`), '--snapshot', wanted)
    await answer('compare', path(`${wanted}.raw`), path('disk.raw'))
  }
  assert.equal((await imprint(['compare', path('disk.qcow2'), path('disk.raw')])).code, 1)
  const none = await imprint(['convert', path('disk.qcow2'), path('x.raw'), '--snapshot', 'after'])
  assert.equal(none.code, 3)
  assert.match(none.stderr, /the file has 1 \(before\)/)
})

test('a compressed qcow2 on standard output is the file that would be written', async (t) => {
  const path = await scratch(t)
  await writeSource(randomDisk(6 * MiB, 7, 2), path('disk.raw'))
  await answer('convert', path('disk.raw'), path('a.qcow2'), '--to', 'qcow2:zstd')
  const words = [process.execPath, main, path('disk.raw'), path('b.qcow2')]
  await runTool('sh', '-c', `"$0" "$1" convert "$2" - --to qcow2:zstd > "$3"`, ...words)
  assert.ok((await readFile(path('a.qcow2'))).equals(await readFile(path('b.qcow2'))))
})

test('on a disk that is full, and without a way to name files later, nothing is left but what is whole', {
  skip: isRoot || lacking('mount'),
}, async (t) => {
  const small = await mkdtemp(join(tmpdir(), 'imprint-small-'))
  await runTool('mount', '-t', 'tmpfs', '-o', 'size=8m', 'none', small)
  t.after(() => runTool('umount', small).then(() => rmdir(small)))
  const path = await scratch(t)
  await writeFile(path('disk.raw'), randomBytes(6 * MiB))
  await mkdir(path('bin')) // without ln
  const full = (env: Record<string, string>) => imprint(['convert', path('disk.raw'), join(small, 'b.raw')], { env })
  await answer('convert', path('disk.raw'), join(small, 'a.raw'))
  for (const env of [{}, { PATH: path('bin') }]) {
    const said = await full(env)
    assert.equal(said.code, 6, said.stderr)
    assert.match(said.stderr, /the disk is full/)
    assert.deepEqual(await readdir(small), ['a.raw'])
  }
  await rm(join(small, 'a.raw'))
  assert.equal((await full({ PATH: path('bin') })).code, 0)
  assert.ok((await readFile(join(small, 'b.raw'))).equals(await readFile(path('disk.raw'))))
  assert.deepEqual(await readdir(small), ['b.raw'])
})
