import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmod, mkdir, symlink, utimes, writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { lacking, run, scratch } from '../../../test/fixtures/disk/tools.ts'
import { answer, imprint, main } from '../disk-file/child.suite.ts'
import { noTerminal, onTerminal } from '../terminal.suite.ts'

const skip = lacking('qemu-img') || lacking('mke2fs') || lacking('sfdisk')
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

/** A qcow2 with a root and a /boot of its own, and names that want to steer a terminal. */
async function machineDisk(t: TestContext): Promise<string> {
  const path = await scratch(t)
  const root = path('root')
  for (const folder of ['etc/ssl', 'boot', 'usr/bin', 'home/\x1b[2J']) await mkdir(`${root}/${folder}`, { recursive: true })
  await writeFile(`${root}/etc/os-release`, 'ID=debian\nPRETTY_NAME="\x1b[31mred"\n')
  await writeFile(`${root}/etc/fstab`, 'LABEL=boot /boot ext4 defaults 0 2\nUUID=12 /srv xfs defaults 0 2\n')
  await writeFile(`${root}/etc/ssl/.secret.pem`, 'key')
  await writeFile(`${root}/usr/bin/su`, 'x'.repeat(1000))
  await chmod(`${root}/usr/bin/su`, 0o4750)
  await utimes(`${root}/usr/bin/su`, 1_600_000_000, 1_600_000_000)
  await symlink('../usr/bin', `${root}/etc/bin`)
  await mkdir(path('boot'))
  await writeFile(path('boot/vmlinuz'), Buffer.from([0, 1, 2, 255]))
  await writeFile(path('disk.raw'), '')
  execFileSync('truncate', ['-s', '48M', path('disk.raw')])
  execFileSync('sfdisk', ['-q', path('disk.raw')], {
    env,
    input: 'label: dos\nstart=2048, size=32768\nstart=34816, size=32768\n',
  })
  for (const [label, folder, start] of [['root', root, 2048] as const, ['boot', path('boot'), 34_816] as const]) {
    const words = [
      '-q',
      '-F',
      '-t',
      'ext4',
      '-L',
      label,
      '-E',
      `offset=${start * 512},root_owner=0:0`,
      '-d',
      folder,
      path('disk.raw'),
      '16384k',
    ]
    execFileSync('mke2fs', words, { env, stdio: 'pipe' })
  }
  await run('qemu-img', 'convert', '-O', 'qcow2', path('disk.raw'), path('disk.qcow2'))
  return path('disk.qcow2')
}

test('the files of the system on a disk are listed, found and printed', { skip }, async (t) => {
  const disk = await machineDisk(t)
  const etc = await answer('ls', disk, '/etc')
  assert.deepEqual(
    etc.map(({ path, kind, target }: Record<string, unknown>) => [path, kind, target]),
    [
      ['/etc/bin', 'symlink', '../usr/bin'],
      ['/etc/fstab', 'file', null],
      ['/etc/os-release', 'file', null],
      ['/etc/ssl', 'directory', null],
    ],
  )
  const [su] = await answer('ls', disk, '/etc/bin/su')
  assert.deepEqual([su.path, su.mode, su.bytes, su.modified], ['/usr/bin/su', '4750', 1000, '2020-09-13T12:26:40.000Z'])
  const long = await imprint(['ls', disk, '/usr/bin'])
  assert.match(long.stdout, /^-rwsr-x--- +\d+ +\d+ +1000 2020-09-13 12:26 {2}\/usr\/bin\/su$/m)
  assert.match(long.stderr, /\/srv is on UUID=12, which is not on this disk/)
  const everything = await answer('ls', disk, '--recursive')
  assert.ok(everything.some(({ path }: { path: string }) => path === '/boot/vmlinuz'))
  assert.deepEqual(await answer('ls', disk, '--volume', 'boot').then((all) => all.map(({ path }: { path: string }) => path)), [
    '/lost+found',
    '/vmlinuz',
  ])

  assert.equal((await imprint(['find', disk, '*.pem'])).stdout, '/etc/ssl/.secret.pem\n')
  assert.equal(
    (await imprint(['find', disk, '/{etc,boot}/**/*', '--kind', 'directory', '--below', 'boot'])).stdout,
    '/boot/lost+found\n',
  )
  assert.equal((await imprint(['find', disk, 'none'])).code, 3)
  const kernel = execFileSync(process.execPath, [main, 'cat', disk, '/boot/vmlinuz'])
  assert.deepEqual([...kernel], [0, 1, 2, 255])
})

test('what a disk says cannot steer a terminal', { skip: skip || noTerminal }, async (t) => {
  const disk = await machineDisk(t)
  const shown = await onTerminal(['cat', disk, '/etc/os-release'], [], process.env)
  assert.equal(shown.status, 0)
  assert.match(shown.shown, /PRETTY_NAME="\\x1b\[31mred"/)
  assert.match((await onTerminal(['ls', disk, '/home'], [], process.env)).shown, /\/home\/\\x1b\[2J/)
})

test('what is not there is said, with what is', { skip }, async (t) => {
  const disk = await machineDisk(t)
  const cases: readonly (readonly [words: readonly string[], code: number, says: RegExp])[] = [
    [['ls', disk, '/etc/nothing'], 3, /there is no "\/etc\/nothing" on the disk/],
    [['cat', disk, '/etc'], 1, /is a directory and not a file/],
    [
      ['ls', disk, '--volume', 'partition 9'],
      3,
      /there is no volume "partition 9"; the disk has partition 1 \(ext4\), partition 2 \(ext4\)/,
    ],
    [['find', disk, '[z-a]'], 2, /is no pattern/],
  ]
  for (const [words, code, says] of cases) {
    const said = await imprint(words)
    assert.equal(said.code, code, said.stderr)
    assert.match(said.stderr, says)
  }
})
