import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { readAccounts } from '../../src/disk/guest/customisation/accounts.ts'
import { readChangedFiles } from '../../src/disk/guest/customisation/changed-files.ts'
import { readRepositories } from '../../src/disk/guest/customisation/repositories.ts'
import { readServices } from '../../src/disk/guest/customisation/services.ts'
import { missingTool } from '../peers/command.ts'
import { LINK, withTree } from './guest-tree.ts'

const skip = missingTool('mke2fs')

test('accounts, how they log in, and whose keys they take', { skip: skip || missingTool('ssh-keygen') }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-key-'))
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'anna@work', '-f', join(folder, 'key')])
  const key = (await readFile(join(folder, 'key.pub'), 'utf8')).trim()
  const fingerprint = execFileSync('ssh-keygen', ['-lf', join(folder, 'key.pub')], { encoding: 'utf8' }).split(' ')[1]!
  await rm(folder, { recursive: true })
  const files = {
    'etc/passwd':
      'root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nanna:x:1000:1000:Anna:/home/anna:/bin/sh\nopen::1001:1001::/:/bin/sh\nold:$1$salt$x:1002:1::/x:/bin/sh\nbroken line\nno:x:-1:1::/:/\n',
    'etc/shadow': 'root:*:1::::::\ndaemon:*:1::::::\nanna:!$y$j9T$abc:1::::::\n',
    'home/anna/.ssh/authorized_keys': `# ${key}\nfrom="10.0.0.0/8",command="echo hi" ${key}\n\nnot a key\n`,
  }
  const accounts = await withTree(files, readAccounts)
  assert.deepEqual(
    accounts.map(({ name, password, passwordScheme, canLogIn, keys }) => [name, password, passwordScheme, canLogIn, keys.length]),
    [
      ['root', 'locked', null, false, 0],
      ['daemon', 'locked', null, false, 0],
      ['anna', 'locked', null, true, 1],
      ['open', 'empty', null, true, 0],
      ['old', 'set', 'md5', true, 0],
    ],
  )
  assert.deepEqual(accounts[2]!.keys, [
    { type: 'ssh-ed25519', fingerprint, comment: 'anna@work', path: '/home/anna/.ssh/authorized_keys' },
  ])
})

test('services that are enabled, by any init', { skip }, async () => {
  const unit = '[Unit]\n'
  const files = {
    'usr/lib/systemd/system/ssh.service': unit,
    'usr/lib/systemd/system/getty@.service': unit,
    'usr/lib/systemd/system/masked.service': unit,
    'etc/systemd/system/own.timer': unit,
    'etc/systemd/system/multi-user.target.wants/ssh.service': `${LINK}/lib/systemd/system/ssh.service`,
    'etc/systemd/system/multi-user.target.wants/gone.service': `${LINK}/lib/systemd/system/gone.service`,
    'etc/systemd/system/multi-user.target.wants/masked.service': `${LINK}/lib/systemd/system/masked.service`,
    'etc/systemd/system/masked.service': `${LINK}/dev/null`,
    'etc/systemd/system/getty.target.wants/getty@tty1.service': `${LINK}/lib/systemd/system/getty@.service`,
    'etc/systemd/system/timers.target.wants/own.timer': `${LINK}/etc/systemd/system/own.timer`,
    'etc/rc2.d/S01ssh': '#',
    'etc/rc2.d/S01legacy': '#',
    'etc/rc2.d/K01stopped': '#',
    'etc/runlevels/boot/networking': '#',
  }
  assert.deepEqual(
    (await withTree(files, readServices)).map(({ unit, init, by }) => `${unit} ${init} ${by}`),
    [
      'getty@tty1.service systemd getty.target',
      'legacy sysvinit rc2',
      'networking openrc boot',
      'own.timer systemd timers.target',
      'ssh.service systemd multi-user.target',
    ],
  )
})

test('where packages come from, without the passwords for it', { skip }, async () => {
  const files = {
    'etc/apt/sources.list':
      '# deb http://a b\ndeb [signed-by=/k] https://me:secret@deb.example/debian bookworm main  # why\ndeb-src http://x y z\n',
    'etc/apt/sources.list.d/new.sources':
      'Types: deb deb-src\nURIs: https://one.example/ https://two.example/\nSuites: a\n b\nComponents: main\n\nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: /\n',
    'etc/apt/sources.list.d/ignored.save': 'deb http://saved x',
    'etc/yum.repos.d/fedora.repo':
      '[fedora]\nname=F\n#baseurl=http://no\nmetalink=https://mirrors.example/$releasever\nenabled=1\n[off]\nbaseurl=https://u:p@off.example/\nenabled=0\n',
    'etc/apk/repositories': 'https://alpine.example/v3.20/main\n@edge https://alpine.example/edge/main\n#/media/x\n',
  }
  assert.deepEqual(
    (await withTree(files, readRepositories)).map(({ system, url, parts, isEnabled }) => [system, url, parts, isEnabled]),
    [
      ['apt', 'https://deb.example/debian', 'bookworm main', true],
      ['apt', 'https://one.example/', 'a b main', true],
      ['apt', 'https://two.example/', 'a b main', true],
      ['apt', 'http://off.example', '/', false],
      ['dnf', 'https://mirrors.example/$releasever', 'fedora', true],
      ['dnf', 'https://off.example/', 'off', false],
      ['apk', 'https://alpine.example/v3.20/main', '', true],
      ['apk', 'https://alpine.example/edge/main', '@edge', true],
    ],
  )
})

test('configuration files that are not as their packages brought them, as md5sum sees those of this machine', {
  skip: skip || missingTool('dpkg-query'),
}, async () => {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own placeholders
  const said = execFileSync('dpkg-query', ['-W', '-f=${db:Status-Status}\\n${Conffiles}\\n'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  })
  const files: Record<string, Buffer> = { 'var/lib/dpkg/status': readFileSync('/var/lib/dpkg/status') }
  const theirs: string[] = []
  let isInstalled = false
  for (const line of said.split('\n')) {
    if (/^[a-z]/.test(line)) isInstalled = line === 'installed'
    const [, path, md5, flag] = /^ (\/.+) ([0-9a-f]{32})( .*)?$/.exec(line) ?? []
    if (!isInstalled || path === undefined || flag !== undefined) continue
    if (!existsSync(path) || !statSync(path).isFile()) theirs.push(`${path} missing`)
    else {
      files[path.slice(1)] = readFileSync(path)
      if (createHash('md5').update(readFileSync(path)).digest('hex') !== md5) theirs.push(`${path} changed`)
    }
  }
  const first = Object.keys(files)[1]!
  files[first] = Buffer.concat([files[first]!, Buffer.from('\n# by hand')])
  theirs.push(`/${first} changed`)
  const found = await withTree(files, readChangedFiles)
  assert.ok(found!.compared > 50)
  assert.deepEqual(found!.files.map(({ path, state }) => `${path} ${state}`).sort(), [...new Set(theirs)].sort())
})
