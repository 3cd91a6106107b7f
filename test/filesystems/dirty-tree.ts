import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LINK } from './guest-tree.ts'

/** What programs make: keys by ssh-keygen and openssl, hashes by openssl. */
export function madeSecrets() {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-secrets-'))
  const say = (...words: string[]) =>
    execFileSync(words[0]!, words.slice(1), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  const file = (name: string) => readFileSync(join(folder, name), 'utf8')
  try {
    say('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'builder@work', '-f', join(folder, 'open'))
    say('ssh-keygen', '-q', '-t', 'ed25519', '-N', 'secret', '-f', join(folder, 'closed'))
    say('ssh-keygen', '-q', '-t', 'rsa', '-b', '2048', '-m', 'PEM', '-N', 'secret', '-f', join(folder, 'old'))
    return {
      ssh: file('open'),
      sshPublic: file('open.pub'),
      sshFingerprint: say('ssh-keygen', '-lf', join(folder, 'open.pub')).split(' ')[1]!,
      sshEncrypted: file('closed'),
      rsaEncrypted: file('old'),
      pkcs8: say('openssl', 'genpkey', '-algorithm', 'ed25519'),
      ec: say('openssl', 'ecparam', '-genkey', '-name', 'prime256v1', '-noout'),
      pkcs8Encrypted: say('openssl', 'genpkey', '-algorithm', 'ed25519', '-aes256', '-pass', 'pass:secret'),
      passwordOf: (id: '1' | '5' | '6', password: string) => say('openssl', 'passwd', `-${id}`, password).trim(),
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
type Secrets = ReturnType<typeof madeSecrets>

/** Written so that this file is none of what it makes. */
const joined = (...parts: readonly string[]): string => parts.join('')
const hex = '0123456789abcdef0123456789abcdef'
export const githubToken = joined('gh', 'p_', 'aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0cF3hJ6')

/** A Linux that somebody worked on, by the rule that each file breaks. */
export const dirtyLinux = (secrets: Secrets): Readonly<Record<string, Readonly<Record<string, string>>>> => ({
  '': {
    'etc/os-release': 'ID=debian\n',
    'etc/passwd':
      'root:x:0:0::/root:/bin/bash\nopen::1001:1::/home/open:/bin/sh\nadmin:x:1002:1::/home/admin:/bin/bash\nanna:x:1003:1::/home/anna:/bin/sh\nnobody::65534:1::/:/usr/sbin/nologin\n',
  },
  'password-set': {
    'etc/shadow': `root:$y$j9T$salt$hash:1::::::\nanna:${secrets.passwordOf('5', 'kQ8!x2 long')}:1\nadmin:${secrets.passwordOf('6', 'changeme')}:1\n`,
  },
  'password-empty': {},
  'password-default': {},
  'ssh-root-login': {
    'etc/ssh/sshd_config': '#PermitRootLogin no\nInclude /etc/ssh/sshd_config.d/*.conf\n',
    'etc/ssh/sshd_config.d/50.conf': 'PermitRootLogin yes\nPermitEmptyPasswords = "yes"\nMatch User x\nPermitRootLogin no\n',
  },
  'ssh-empty-passwords': {},
  'authorized-key': { 'home/anna/.ssh/authorized_keys': secrets.sshPublic },
  'ssh-host-key': { 'etc/ssh/ssh_host_ed25519_key': secrets.ssh, 'etc/ssh/ssh_host_ed25519_key.pub': secrets.sshPublic },
  'private-key': {
    'root/.ssh/id_ed25519': secrets.ssh,
    'etc/ssl/private/site.key': secrets.pkcs8,
    'srv/app/config.yaml': `tls:\n  key: |\n${secrets.ec.replace(/^/gm, '    ')}`,
    'opt/service-account.json': JSON.stringify({ type: 'service_account', private_key: secrets.pkcs8 }),
    'etc/wireguard/wg0.conf': `[Interface]\nPrivateKey = ${joined('yAnz5TF', '+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=')}\n`,
  },
  'private-key-encrypted': {
    'root/.ssh/id_closed': secrets.sshEncrypted,
    'root/.ssh/id_rsa': secrets.rsaEncrypted,
    'etc/ssl/private/closed.key': secrets.pkcs8Encrypted,
    'home/anna/store.p12': '0\x82\0\0\x01',
  },
  'private-key-local': { 'etc/ssl/private/ssl-cert-snakeoil.key': secrets.pkcs8 },
  'private-key-of-package': { 'usr/local/lib/python3/dist-packages/tests/server.key': secrets.pkcs8 },
  credentials: {
    'root/.aws/credentials': '[default]\naws_secret_access_key = abcdefghij/ABCDEFGHIJ/0123456789abcdefghi\n',
    'root/.azure/msal_token_cache.json': '{}',
    'root/.config/gcloud/credentials.db': 'SQLite format 3\0',
    'root/.docker/config.json': '{"auths": {"registry.example": {"auth": "dTpw"}}}',
    'root/.kube/config': 'users:\n- name: a\n  user:\n    client-key-data: LS0t\n',
    'root/.netrc': 'machine a.example login me password hunter2\n',
    'root/.npmrc': '//registry.npmjs.org/:_authToken=abc\n',
    'root/.pypirc': '[pypi]\nusername = me\npassword = hunter2\n',
    'root/.git-credentials': 'https://me:hunter2@git.example\n',
    'home/anna/.pgpass': 'host:5432:db:me:hunter2\n',
    'home/anna/.my.cnf': '[client]\npassword=hunter2\n',
    'etc/apt/sources.list.d/own.list': 'deb https://me:hunter2@deb.example/ x main\n',
    'etc/openstack/clouds.yaml': 'clouds:\n  a:\n    auth:\n      password: hunter2\n',
  },
  token: { 'opt/app/settings.env': `GITHUB_TOKEN=${githubToken}\n` },
  'network-password': { 'etc/NetworkManager/system-connections/home.nmconnection': '[wifi-security]\npsk=hunter2\n' },
  'cloud-init-password': {
    'var/lib/cloud/instances/i-1/user-data.txt': '#cloud-config\nchpasswd:\n  list: |\n    root:hunter2\n',
    'etc/cloud/cloud.cfg.d/99.cfg': 'password: hunter2\n',
  },
  'cloud-init-state': { 'var/lib/cloud/instance': `${LINK}/var/lib/cloud/instances/i-1` },
  'cloud-init-seed': { 'var/lib/cloud/seed/nocloud/meta-data': 'instance-id: a\n' },
  'systemd-credential-secret': { 'var/lib/systemd/credential.secret': 'x' },
  'machine-id': { 'etc/machine-id': `${hex}\n`, 'var/lib/dbus/machine-id': `${hex}\n` },
  'random-seed': { 'var/lib/systemd/random-seed': 'x' },
  'storage-initiator': { 'etc/iscsi/initiatorname.iscsi': '# a\nInitiatorName=iqn.1993-08.org.debian:01:abc\n' },
  'network-secret-key': { 'var/lib/NetworkManager/secret_key': 'x' },
  hostname: { 'etc/hostname': 'build-host-7\n' },
  subscription: { 'etc/pki/consumer/cert.pem': 'x' },
  'network-mac': {
    'etc/udev/rules.d/70-persistent-net.rules': 'SUBSYSTEM=="net", ATTR{address}=="52:54:00:12:34:56", NAME="eth0"\n',
    'etc/netplan/50-cloud-init.yaml':
      'network:\n  ethernets:\n    a:\n      match:\n        macaddress: "52:54:00:12:34:56"\n      addresses:\n        - 10.0.0.7/24\n',
  },
  'network-static': { 'etc/network/interfaces': 'auto lo\niface lo inet loopback\niface eth0 inet static\n  address 10.0.0.2\n' },
  'resolv-conf': { 'etc/resolv.conf': 'nameserver 10.0.0.1\n' },
  'dhcp-lease': { 'var/lib/dhcp/dhclient.eth0.leases': 'lease {}\n' },
  proxy: { 'etc/apt/apt.conf.d/01proxy': 'Acquire::http::Proxy "http://cache.example:3142";\n' },
  history: {
    'root/.bash_history': 'ls\n',
    'root/.viminfo': 'x',
    'root/.lesshst': 'x',
    'home/anna/.python_history': 'x',
    'home/anna/.mysql_history': 'x',
    'home/anna/.psql_history': 'x',
    'home/anna/.zsh_history': 'x',
  },
  'known-hosts': { 'root/.ssh/known_hosts': 'a' },
  mail: { 'var/mail/root': 'From x\n' },
  'core-dump': { 'var/lib/systemd/coredump/core.x.zst': 'x' },
  'swap-content': { swapfile: `${'\0'.repeat(4086)}SWAPSPACE2${'\0'.repeat(8192)}hunter2${'\0'.repeat(4090)}` },
  hibernation: {
    'etc/fstab': '/other.swap none swap sw 0 0\n',
    'other.swap': `${'\0'.repeat(4086)}S1SUSPEND\0${'\0'.repeat(8192)}`,
  },
  logs: { 'var/log/syslog': 'x', 'var/log/apt/term.log': 'x' },
  journal: { [`var/log/journal/${hex}/system.journal`]: 'x' },
  'login-records': { 'var/log/wtmp': 'x' },
  'temporary-files': { 'tmp/a': 'x', 'var/tmp/b/c': 'x' },
  'package-cache': { 'var/cache/apt/archives/a.deb': 'x' },
})

/** The same work, where nothing is left of it. */
export const cleanLinux: Readonly<Record<string, string>> = {
  'etc/os-release': 'ID=debian\n',
  'etc/passwd': 'root:x:0:0::/root:/bin/bash\ndaemon::1:1::/:/usr/sbin/nologin\n',
  'etc/shadow': 'root:!*:1::::::\n',
  'etc/machine-id': 'uninitialized\n',
  'var/lib/dbus/machine-id': `${LINK}/etc/machine-id`,
  'etc/hostname': 'localhost\n',
  'etc/resolv.conf': `${LINK}/run/systemd/resolve/stub-resolv.conf`,
  'etc/ssh/sshd_config': '#PermitRootLogin yes\nPermitRootLogin prohibit-password\nPermitRootLogin yes\n',
  'etc/ssh/ssh_host_rsa_key': '',
  'root/.bash_history': `${LINK}/dev/null`,
  'root/.ssh/authorized_keys': '# no keys\n',
  'root/.npmrc': `//registry.npmjs.org/:_authToken=\${NPM_TOKEN}\n`,
  'root/.docker/config.json': '{"auths": {"registry.example": {}}, "credsStore": "pass"}',
  'root/.kube/config': 'apiVersion: v1\nusers: []\n',
  'var/log/wtmp': '',
  'etc/apt/apt.conf.d/99': '#Acquire::http::Proxy "http://a";\nAcquire::http::Proxy::a.example DIRECT;\n',
  'etc/apt/sources.list': 'deb https://deb.example/debian bookworm main # me:x@y\n',
  'etc/network/interfaces': 'auto lo\niface lo inet loopback\niface eth0 inet dhcp\n#iface eth1 inet static\n',
  'etc/cloud/cloud.cfg':
    'users:\n - default\nsystem_info:\n  default_user:\n    name: debian\n    lock_passwd: True\ncloud_config_modules:\n - set-passwords\n',
  'etc/ssl/openssl.cnf': '# -----BEGIN PRIVATE KEY-----\n',
  'usr/local/bin/find-keys':
    '#!/bin/sh\ngrep -r -- "-----BEGIN RSA PRIVATE KEY-----" /etc\necho "-----BEGIN OPENSSH PRIVATE KEY----- and -----END OPENSSH PRIVATE KEY-----"\n',
  'etc/ssl/certs/a.pem': `-----BEGIN CERTIFICATE-----\n${'A'.repeat(64)}\n-----END CERTIFICATE-----\n`,
  'opt/app/README': `use AKIAIOSFODNN7EXAMPLE, or ${joined('gh', 'p_')}${'x'.repeat(36)}\n`,
  'etc/udev/rules.d/80.rules': '# ATTR{address}=="52:54:00:12:34:56"\n',
  swapfile: `${'\0'.repeat(4086)}SWAPSPACE2${'\0'.repeat(8192)}`,
}
