import type { Look, NewCheck } from './look.ts'

const machineIds: readonly string[] = ['/etc/machine-id', '/var/lib/dbus/machine-id']
const seeds: readonly string[] = [
  '/var/lib/systemd/random-seed',
  '/var/lib/urandom/random-seed',
  '/var/lib/random-seed',
  '/var/lib/misc/random-seed',
  '/var/lib/seedrng/seed.credit',
  '/boot/loader/random-seed',
  '/boot/efi/loader/random-seed',
  '/efi/loader/random-seed',
  '/loader/random-seed',
]
/** Names that installers and builders of general images give. */
const generalNames: readonly string[] = [
  'localhost',
  'localhost.localdomain',
  'localhost-live',
  'linux',
  '(none)',
  'unassigned-hostname',
]
const registrations: readonly (readonly [path: string, vendor: string])[] = [
  ['/etc/pki/consumer/cert.pem', 'Red Hat'],
  ['/etc/sysconfig/rhn/systemid', 'Red Hat Satellite or Uyuni'],
  ['/etc/zypp/credentials.d/SCCcredentials', 'SUSE'],
  ['/var/lib/ubuntu-advantage/private/machine-token.json', 'Ubuntu Pro'],
]

/** What makes one machine that machine. */
export const identity: NewCheck = (look) => ({
  async places() {
    if (look.family !== 'linux') return
    await machineId(look)
    for (const path of seeds) if (await isFilled(look, path)) look.add('random-seed', path, 'a seed of random numbers')
    if (await isFilled(look, '/var/lib/systemd/credential.secret'))
      look.add('systemd-credential-secret', '/var/lib/systemd/credential.secret', 'the key for credentials of this host')
    await initiators(look)
    await names(look)
    for (const [path, vendor] of registrations)
      if (await isFilled(look, path)) look.add('subscription', path, `registered with ${vendor}`)
    if (await isFilled(look, '/var/lib/NetworkManager/secret_key'))
      look.add('network-secret-key', '/var/lib/NetworkManager/secret_key', 'the secret key of NetworkManager')
  },
})

/** Of a regular file that is no link. */
async function isFilled(look: Look, path: string): Promise<boolean> {
  const found = await look.find(path, false)
  return found?.node.kind === 'file' && found.node.bytes > 0
}

/** Empty: made at the first start; `uninitialized`: the same, as a first start. It is confidential, and not said. Source: machine-id(5). */
async function machineId(look: Look): Promise<void> {
  for (const path of machineIds) {
    const found = await look.find(path, false)
    if (found?.node.kind !== 'file') continue
    const id = ((await look.text(path)) ?? '').trim()
    if (id !== '' && id !== 'uninitialized') look.add('machine-id', path, 'an id is set')
  }
}

async function initiators(look: Look): Promise<void> {
  const iscsi = '/etc/iscsi/initiatorname.iscsi'
  const name = /^InitiatorName=([^\s]{1,223})/m.exec((await look.text(iscsi)) ?? '')?.[1]
  if (name !== undefined) look.add('storage-initiator', iscsi, `the iSCSI initiator ${name}`)
  for (const path of ['/etc/nvme/hostid', '/etc/nvme/hostnqn'])
    if (await isFilled(look, path)) look.add('storage-initiator', path, 'the identity of an NVMe host')
}

async function names(look: Look): Promise<void> {
  const distro = /^ID="?([a-z0-9._-]{1,64})/m.exec((await look.text('/etc/os-release')) ?? '')?.[1]
  for (const path of ['/etc/hostname', '/etc/HOSTNAME', '/etc/mailname']) {
    const name = (await look.text(path))
      ?.split('\n')
      .find((line) => line.trim() !== '' && !line.startsWith('#'))
      ?.trim()
    if (name === undefined || generalNames.includes(name) || name === distro) continue
    look.add('hostname', path, `the name ${name.slice(0, 255)}`)
  }
}
