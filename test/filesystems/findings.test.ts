import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { checkFiles } from '../../src/disk/guest/findings/check.ts'
import { passwordHash } from '../../src/disk/guest/findings/crypt.ts'
import { type Findings, levels } from '../../src/disk/guest/findings/finding.ts'
import { privateKeysIn } from '../../src/disk/guest/findings/private-key.ts'
import { isLike, parseRequirements } from '../../src/disk/guest/findings/required.ts'
import { rules } from '../../src/disk/guest/findings/rules.ts'
import { tokensIn } from '../../src/disk/guest/findings/tokens.ts'
import { missingTool } from '../peers/command.ts'
import { cleanLinux, dirtyLinux, githubToken, madeSecrets } from './dirty-tree.ts'
import { withTree } from './guest-tree.ts'

const skip = missingTool('mke2fs')
const skipMade = skip || missingTool('openssl', 'ssh-keygen')
const linux = { family: 'linux' } as const
const short = ({ findings }: Findings) => findings.map(({ rule, path }) => `${rule} ${path}`)

test('everything that a dirty tree gives away is found, and of no secret more than a fingerprint', {
  skip: skipMade,
}, async () => {
  const secrets = madeSecrets()
  const dirty = dirtyLinux(secrets)
  const files = Object.assign({}, ...Object.values(dirty))
  const found = await withTree(files, (tree) => checkFiles(tree, linux))
  assert.deepEqual([found.notes, found.isComplete], [[], true])
  assert.deepEqual([...new Set(found.findings.map(({ rule }) => rule))].sort(), Object.keys(dirty).filter(Boolean).sort())
  const grouped: readonly string[] = ['logs', 'journal', 'temporary-files', 'package-cache', 'mail', 'core-dump']
  for (const [rule, broken] of Object.entries(dirty)) {
    const paths = found.findings.filter((each) => each.rule === rule).map(({ path }) => path)
    if (rule === '' || grouped.includes(rule)) continue
    for (const path of Object.keys(broken)) {
      const isBeside = /\.pub$|fstab$|sshd_config$|cloud\/instance/.test(path)
      assert.ok(isBeside || paths.includes(`/${path}`), `${rule} is not found in ${path}`)
    }
  }
  const all = JSON.stringify(found)
  for (const secret of [
    githubToken,
    'hunter2',
    secrets.ssh.slice(60, 100),
    '0123456789abcdef',
    '$y$',
    '$6$',
    'abcdefghij/',
    'yAnz5TF',
  ])
    assert.ok(!all.includes(secret), `${secret} is in an answer`)
  const keys = found.findings.filter(({ path }) => path === '/root/.ssh/id_ed25519' || path === '/etc/ssh/ssh_host_ed25519_key')
  for (const { what } of keys) assert.ok(what.includes(secrets.sshFingerprint), what)
  assert.deepEqual(
    found.findings.filter(({ rule }) => rule.startsWith('password-')).map(({ rule, what }) => `${rule} ${what.slice(0, 17)}`),
    [
      'password-default the account admin',
      'password-empty the account open ',
      'password-set the account root:',
      'password-set the account anna:',
    ],
  )
  const weights = found.findings.map(({ level }) => levels.indexOf(level))
  assert.deepEqual(
    weights,
    weights.toSorted((a, b) => b - a),
  )
})

test('a clean tree has no findings, whatever looks like one', { skip }, async () => {
  const found = await withTree(cleanLinux, (tree) => checkFiles(tree, linux))
  assert.deepEqual([short(found), found.notes, found.isComplete], [[], [], true])
})

test('a key that dpkg installed is no secret, and the same path with another is', { skip: skipMade }, async () => {
  const { pkcs8, ec } = madeSecrets()
  const { createHash } = await import('node:crypto')
  const md5 = createHash('md5').update(pkcs8).digest('hex')
  const files = {
    'etc/example/a.key': pkcs8,
    'etc/example/b.key': ec,
    'var/lib/dpkg/info/example.md5sums': `${md5}  etc/example/a.key\n${md5}  etc/example/b.key\n`,
  }
  const found = await withTree(files, (tree) => checkFiles(tree, linux))
  assert.deepEqual(short(found), ['private-key /etc/example/b.key', 'private-key-of-package /etc/example/a.key'])
})

test('Windows: answer files, Sysprep, hibernation, keys', { skip: skipMade }, async () => {
  const { sshPublic, ssh } = madeSecrets()
  const answer =
    '<unattend><UserAccounts><AdministratorPassword><Value>cABhAHMA</Value><PlainText>false</PlainText></AdministratorPassword></UserAccounts></unattend>'
  const used =
    '<Password>*SENSITIVE*DATA*DELETED*</Password><AutoLogon><Password><Value></Value></Password><Value>x</Value></AutoLogon>'
  const files = {
    'Windows/System32/ntoskrnl.exe': 'MZ',
    'Windows/Panther/unattend.xml': Buffer.from(`\ufeff${answer}`, 'utf16le'),
    'Windows/System32/Sysprep/unattend.xml': used,
    'Windows/System32/winevt/Logs/System.evtx': 'x',
    'Windows/WinSxS/amd64/key.pem': ssh,
    'hiberfil.sys': 'x',
    'ProgramData/ssh/ssh_host_ed25519_key': ssh,
    'ProgramData/ssh/administrators_authorized_keys': sshPublic,
    'Users/anna/.aws/credentials': 'aws_secret_access_key=abc\n',
    'Users/anna/AppData/Roaming/Microsoft/Windows/PowerShell/PSReadLine/ConsoleHost_history.txt': 'x',
  }
  const found = await withTree(files, (tree) => checkFiles(tree, { family: 'windows' }))
  assert.deepEqual(short(found), [
    'authorized-key /ProgramData/ssh/administrators_authorized_keys',
    'credentials /Users/anna/.aws/credentials',
    'hibernation /hiberfil.sys',
    'ssh-host-key /ProgramData/ssh/ssh_host_ed25519_key',
    'unattend-password /Windows/Panther/unattend.xml',
    'history /Users/anna/AppData/Roaming/Microsoft/Windows/PowerShell/PSReadLine/ConsoleHost_history.txt',
    'not-generalised /Windows/System32/Sysprep',
    'logs /Windows/System32/winevt/Logs',
    'setup-answers /Windows/System32/Sysprep/unattend.xml',
  ])
  const sealed = { 'Windows/System32/ntoskrnl.exe': 'MZ', 'Windows/System32/Sysprep/Sysprep_succeeded.tag': '' }
  assert.deepEqual(short(await withTree(sealed, (tree) => checkFiles(tree, { family: 'windows' }))), [])
})

test('keys are found where sshd is told to look, and long names are cut', { skip: skipMade }, async () => {
  const { sshPublic } = madeSecrets()
  const name = 'n'.repeat(300_000) // its square is more than a buffer can hold
  const files = {
    'etc/passwd': `anna:!:1000:1::/home/anna:/bin/sh\n${name}::1001:1::/:/bin/sh\n${name}x:$5$a$${'b'.repeat(43)}:1002:1::/:/bin/sh\n`,
    'etc/ssh/sshd_config': 'AuthorizedKeysFile /etc/ssh/Keys/%u .ssh/other none\nAuthorizedKeysFile /etc/ssh/no/%u\n',
    'etc/ssh/Keys/anna': sshPublic,
    'etc/ssh/no/anna': sshPublic,
    'home/anna/.ssh/other': sshPublic,
  }
  const found = await withTree(files, (tree) => checkFiles(tree, linux))
  assert.deepEqual(short(found), [
    'authorized-key /etc/ssh/Keys/anna',
    'authorized-key /home/anna/.ssh/other',
    'password-empty /etc/passwd',
    'password-set /etc/passwd',
  ])
  assert.ok(found.findings[2]!.what.length < 1100)
})

test('what cannot be looked at is said, and nothing is clean then', { skip }, async () => {
  const line = `${'x'.repeat(2 ** 20)}\n`
  const files = { 'etc/passwd': line.repeat(17), 'opt/large.conf': line.repeat(2), 'opt/large.bin': `\0${line.repeat(2)}` }
  const found = await withTree(files, (tree) => checkFiles(tree, { ...linux, unseen: ['partition 3 is encrypted'] }))
  assert.equal(found.isComplete, false)
  for (const says of [
    /^partition 3 is encrypted$/,
    /^\/etc\/passwd could not be looked at/,
    /^\/opt\/large.conf has 2097154 bytes: only the first/,
  ])
    assert.ok(
      found.notes.some((note) => says.test(note)),
      `${says} is not in ${found.notes.join('; ')}`,
    )
  assert.ok(!found.notes.some((note) => note.includes('large.bin')))
})

test('a thousand keys are two hundred findings and a note', { skip: skipMade }, async () => {
  const { ec } = madeSecrets()
  const keys = Object.fromEntries(Array.from({ length: 10 }, (_, at) => [`srv/${at}`, ec.repeat(100)]))
  const found = await withTree(keys, (tree) => checkFiles(tree, linux))
  assert.equal(found.findings.length, 200)
  assert.deepEqual(found.notes, ['there are more than 200 findings of private-key: the rest is left out'])
})

test('what must be there, by packages, files and services', { skip }, async () => {
  const files = {
    'etc/passwd': '',
    'var/lib/dpkg/status': 'Package: cloud-init\nStatus: install ok installed\nVersion: 1\n',
    'usr/lib/systemd/system/agent.service': '',
    'etc/systemd/system/multi-user.target.wants/agent.service': '',
    'usr/lib/modules/6.1/kernel/drivers/net/virtio_net.ko.xz': 'x',
  }
  const requires = [
    { anyOf: [{ package: 'nothing' }, { package: 'cloud-init' }] },
    { anyOf: [{ service: 'agent' }] },
    { anyOf: [{ file: '/usr/lib/modules/*/kernel/drivers/net/virtio_net.ko*' }] },
    {
      name: 'guest agent',
      why: 'for snapshots',
      level: 'medium',
      anyOf: [{ package: 'qemu-guest-agent' }, { service: 'qga.service' }, { file: '/usr/*/qemu-ga' }],
    },
  ]
  const requirements = parseRequirements({ requires })
  const found = await withTree(files, (tree) => checkFiles(tree, { ...linux, requirements }))
  assert.deepEqual(
    found.findings.map(({ rule, level, what }) => [rule, level, what]),
    [
      [
        'agent-missing',
        'medium',
        'guest agent: there is none of the package qemu-guest-agent, the service qga.service, the file /usr/*/qemu-ga; for snapshots',
      ],
    ],
  )
  const { 'var/lib/dpkg/status': _, ...others } = files
  const unknown = await withTree(others, (tree) => checkFiles(tree, { ...linux, requirements }))
  assert.deepEqual([unknown.findings, unknown.isComplete], [[], false])
  assert.match(unknown.notes.join('\n'), /whether guest agent is there could not be told/)
})

const refused: readonly (readonly [name: string, value: unknown, says: RegExp])[] = [
  ['no object', [], /the rules must be an object/],
  ['a word that is not known', { requires: [], also: 1 }, /the rules has "also"/],
  ['no list', { requires: {} }, /requires must be a list/],
  ['nothing that would do', { requires: [{ anyOf: [] }] }, /requires\[0\]\.anyOf must have something/],
  ['two in one', { requires: [{ anyOf: [{ package: 'a', file: '/b' }] }] }, /anyOf\[0\] must have one of/],
  ['a relative path', { requires: [{ anyOf: [{ file: 'b' }] }] }, /anyOf\[0\]\.file must begin with \//],
  ['a level that is none', { requires: [{ level: 'fatal', anyOf: [{ file: '/b' }] }] }, /level must be one of info, low/],
  ['a number', { requires: [{ anyOf: [{ package: 7 }] }] }, /package must be a text/],
]
for (const [name, value, says] of refused)
  test(`rules with ${name} are refused`, () =>
    assert.throws(() => parseRequirements(value), { code: 'invalid-request', message: says }))

test('a star in a path stands for any characters of a name', () => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['a', 'a', true],
    ['ab', 'a', false],
    ['ab', 'a*', true],
    ['a', 'a*a', false],
    ['xyzzy', '*y*y', true],
    ['xyz', '*z*z', false],
    ['', '*', true],
    ['a.b.c', 'a.*.c', true],
    [`${'a'.repeat(100_000)}b`, `${'a*'.repeat(500)}c`, false],
  ]
  for (const [name, pattern, answer] of cases)
    assert.equal(isLike(name, pattern), answer, `${name.slice(0, 20)} ${pattern.slice(0, 20)}`)
})

test('hashes of passwords are those of openssl', { skip: missingTool('openssl') }, () => {
  const { passwordOf } = madeSecrets()
  for (const password of ['a', 'changeme', 'müde', 'x'.repeat(70), 'exactly sixteen!'])
    for (const id of ['1', '5', '6'] as const) {
      const hash = passwordHash(passwordOf(id, password))
      assert.deepEqual([hash?.matches(password), hash?.matches(`${password}x`)], [true, false], `$${id}$ ${password}`)
    }
  // U. Drepper's own vector, with rounds
  const long =
    '$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.'
  assert.deepEqual([passwordHash(long)?.rounds, passwordHash(long)?.matches('Hello world!')], [10_000, true])
  for (const other of ['$y$j9T$a$b', '$2b$12$x', '', '$6$salt$short', '$6$rounds=9999999999$a$b'])
    assert.equal(passwordHash(other), undefined)
})

/** What makes an expression that goes back over what it read take time by the square, or worse. */
const worst: readonly string[] = [
  ' ',
  '\t',
  '-',
  '- ',
  '"',
  "'",
  '=',
  ':',
  'a',
  'A1 ',
  '://a',
  '://a:',
  'a:',
  '1.',
  '00:',
  '<',
  '<a ',
  '{',
  ', ',
  '\\n',
  'AAAA',
  'sha',
  'AKIA',
  'ghp_a',
  'xoxb-1',
  'SG.',
  'tskey-a',
  'eyJ',
  '-----BEGIN ',
  '-----BEGIN PRIVATE KEY-----',
  'PrivateKey =',
  'password',
  'password ',
  'token=',
  'http://',
  'https://a:b',
  'export ',
  'iface a inet ',
  'ssh-a ',
  'nameserver ',
  'chpasswd:',
  '$6$',
  'AGE-SECRET-KEY-1',
  'password: ',
]
const texts: readonly string[] = [
  'etc/passwd',
  'etc/shadow',
  'etc/fstab',
  'etc/os-release',
  'etc/hostname',
  'etc/resolv.conf',
  'etc/ssh/sshd_config',
  'etc/iscsi/initiatorname.iscsi',
  'root/.ssh/authorized_keys',
  'etc/netplan/a.yaml',
  'etc/network/interfaces',
  'etc/sysconfig/network-scripts/ifcfg-a',
  'etc/udev/rules.d/a.rules',
  'etc/systemd/network/a.link',
  'etc/NetworkManager/system-connections/a',
  'etc/wpa_supplicant/a.conf',
  'etc/environment',
  'etc/apt/apt.conf.d/a',
  'etc/cloud/cloud.cfg',
  'root/.aws/credentials',
  'root/.docker/config.json',
  'root/.kube/config',
  'root/.netrc',
  'root/.npmrc',
  'root/.pypirc',
  'root/.git-credentials',
  'root/.m2/settings.xml',
  'root/.gradle/gradle.properties',
  'root/.my.cnf',
  'root/.pgpass',
  'root/.s3cfg',
  'etc/ppp/chap-secrets',
  'root/openrc',
  'etc/apt/sources.list',
  'opt/any',
  'autounattend.xml',
  'unattend.xml',
]

test('texts of the worst kind are read in time that grows with their length: not one hangs', { skip }, async () => {
  const lines = worst.flatMap((piece) => [piece.repeat(4096 / piece.length), `${piece.repeat(16_384 / piece.length)}!`])
  const files = Object.fromEntries(texts.map((path) => [path, `${lines.join('\n')}\n`]))
  assert.deepEqual((await withTree(files, (tree) => checkFiles(tree, linux))).notes, [])
  const answers = { 'unattend.xml': files['unattend.xml']! }
  assert.deepEqual((await withTree(answers, (tree) => checkFiles(tree, { family: 'windows' }))).notes, [])
  const long = worst.map((piece) => piece.repeat(2 ** 18 / piece.length))
  for (const text of long) assert.deepEqual([privateKeysIn(text), tokensIn(text)], [[], []])
})

test('docs/findings.md has every rule, with its level, its meaning and its remedy, and no other', () => {
  const page = readFileSync(new URL('../../docs/findings.md', import.meta.url), 'utf8')
  const documented = [...page.matchAll(/^### (\S+)\n\n(\S+)\. (.*)\n\nRemedy: (.*)\.$/gm)]
  assert.deepEqual(Object.fromEntries(documented.map(([, id, level, means, remedy]) => [id, { level, means, remedy }])), rules)
})
