import type { Level } from './finding.ts'

export interface Rule {
  readonly level: Level
  /** What it means that it was found, in sentences. */
  readonly means: string
  /** What to do about it, a clause. */
  readonly remedy: string
}

/** Every rule by its stable id. docs/findings.md is the same for people, and a test holds the two together. */
export const rules = {
  // doors
  'authorized-key': {
    level: 'high',
    means: 'Whoever has the private half of this key can log in to every instance.',
    remedy: 'delete the file; cloud-init writes the keys of whoever starts an instance',
  },
  'password-empty': {
    level: 'high',
    means:
      'An account with a shell has an empty password: anybody may log in at the console, and wherever else empty passwords are taken.',
    remedy: 'lock it: passwd --lock NAME',
  },
  'password-default': {
    level: 'high',
    means: 'The password of an account is one that everybody tries first.',
    remedy: 'lock it: passwd --lock NAME',
  },
  'password-set': {
    level: 'medium',
    means:
      'An account has a password, which is the same in every instance; whoever gets the image can try to find it out from its hash.',
    remedy: 'lock it (passwd --lock NAME), and let cloud-init set one where it is wanted',
  },
  'ssh-root-login': {
    level: 'high',
    means: 'sshd lets root log in with a password, and root has one.',
    remedy: 'set PermitRootLogin prohibit-password in sshd_config, or lock root',
  },
  'ssh-root-login-permitted': {
    level: 'low',
    means: 'sshd would let root log in with a password; root has none now, so that nobody can.',
    remedy: 'set PermitRootLogin prohibit-password in sshd_config',
  },
  'ssh-empty-passwords': {
    level: 'high',
    means: 'sshd takes empty passwords.',
    remedy: 'remove PermitEmptyPasswords from sshd_config',
  },
  // secrets
  'ssh-host-key': {
    level: 'high',
    means: 'Every instance would prove by this key that it is the right machine, and so can whoever has the image.',
    remedy: 'delete the key and its .pub; cloud-init, or ssh-keygen -A, makes new ones at the first start',
  },
  'private-key': {
    level: 'high',
    means: 'A private key that no password protects: whoever gets the image has it.',
    remedy: 'delete it, and hold it for known to others if the image has been anywhere',
  },
  'private-key-encrypted': {
    level: 'medium',
    means: 'A private key or a store of keys that a password protects: whoever gets the image can try passwords for ever.',
    remedy: 'delete it',
  },
  'private-key-local': {
    level: 'low',
    means: 'A private key that a package makes for a machine when it is installed: all instances would share it.',
    remedy: 'delete it and make a new one at the first start (make-ssl-cert generate-default-snakeoil --force-overwrite)',
  },
  'private-key-of-package': {
    level: 'info',
    means: 'A private key that a package brings to everybody, as an example or for tests: it is no secret.',
    remedy: 'nothing, unless something uses it',
  },
  credentials: {
    level: 'high',
    means: 'A file that programs keep credentials in, with credentials in it: of a cloud, a registry, a cluster, a database.',
    remedy: 'delete it, and revoke what was in it if the image has been anywhere',
  },
  token: {
    level: 'high',
    means: 'A text that has the form of a token which some service gives out.',
    remedy: 'remove it, and revoke it if the image has been anywhere',
  },
  'network-password': {
    level: 'high',
    means: 'A password of a network: of a wireless one, of a VPN, or of 802.1X.',
    remedy: 'delete the connection',
  },
  'cloud-init-password': {
    level: 'high',
    means: 'A configuration or seed of cloud-init sets a password, which every instance would have.',
    remedy: 'remove it; user data of an instance sets passwords',
  },
  'unattend-password': {
    level: 'high',
    means: 'An answer file of Windows Setup holds a password, in the clear or encoded so that anybody can read it.',
    remedy: 'delete the file, and change the password',
  },
  'systemd-credential-secret': {
    level: 'high',
    means: 'The key that systemd encrypts credentials of this host with: all instances would share it.',
    remedy: 'delete it; systemd makes a new one when it is needed',
  },
  // identity
  'machine-id': {
    level: 'medium',
    means: 'The identity of one machine: instances that share it get the same address by DHCP, and logs cannot tell them apart.',
    remedy: 'empty /etc/machine-id (truncate -s 0), and let /var/lib/dbus/machine-id be a link to it or absent',
  },
  'random-seed': {
    level: 'medium',
    means: 'Random numbers that are the same at the first start of every instance.',
    remedy: 'delete it; a new one is written at the next stop',
  },
  'storage-initiator': {
    level: 'medium',
    means: 'The name of one machine towards storage (iSCSI, NVMe): two that share it can destroy the data of each other.',
    remedy: 'delete it; it is made again at the first start',
  },
  'network-secret-key': {
    level: 'medium',
    means: 'What NetworkManager derives addresses and DHCP identities of one machine from.',
    remedy: 'delete it; NetworkManager makes a new one',
  },
  hostname: {
    level: 'low',
    means: 'The name of the machine that the image was made on, or of its first instance.',
    remedy: 'empty or delete the file; cloud-init sets the name of each instance',
  },
  subscription: {
    level: 'medium',
    means: 'The machine was registered with a vendor: instances would be taken for the same machine.',
    remedy: 'unregister it (subscription-manager unregister, SUSEConnect --cleanup, pro detach)',
  },
  // network
  'network-mac': {
    level: 'medium',
    means: 'The network is configured for a card with one MAC address, which no instance has.',
    remedy: 'delete the file or the line; cloud-init writes the network of each instance',
  },
  'network-static': {
    level: 'medium',
    means: 'A fixed address, which all instances would take.',
    remedy: 'delete it, or configure DHCP',
  },
  'resolv-conf': {
    level: 'low',
    means: 'Name servers of the network that the image was made in.',
    remedy: 'empty the file; DHCP or cloud-init writes it',
  },
  'dhcp-lease': {
    level: 'low',
    means: 'An address that a DHCP server gave once, and the network of that time; instances may ask for the same address.',
    remedy: 'delete it',
  },
  proxy: {
    level: 'low',
    means: 'A proxy of the network that the image was made in: instances elsewhere cannot fetch anything.',
    remedy: 'remove the line',
  },
  // traces
  'cloud-init-state': {
    level: 'medium',
    means: 'What cloud-init knows of the instance that it ran in, user data among it; on the next it may hold its work for done.',
    remedy: 'cloud-init clean --logs --seed, or delete /var/lib/cloud',
  },
  'cloud-init-seed': {
    level: 'low',
    means: 'A seed that every instance would be configured from.',
    remedy: 'delete it, unless that is what the image is for',
  },
  history: {
    level: 'medium',
    means: 'What somebody typed into a shell, an editor or a database: passwords among it, often.',
    remedy: 'delete it',
  },
  'known-hosts': {
    level: 'low',
    means: 'Hosts that somebody logged in to from here.',
    remedy: 'delete it',
  },
  mail: {
    level: 'medium',
    means: 'Mail that was not fetched.',
    remedy: 'delete it',
  },
  'core-dump': {
    level: 'medium',
    means: 'The memory of a program that crashed: keys and passwords may be in it.',
    remedy: 'delete it',
  },
  'swap-content': {
    level: 'medium',
    means: 'Pages of memory that were swapped out: keys and passwords may be among them.',
    remedy: 'overwrite it with zeros and make it anew with mkswap, or leave it out',
  },
  hibernation: {
    level: 'high',
    means: 'The whole memory of a machine that was hibernated, or what Windows keeps of it for a fast start.',
    remedy: 'start it and shut it down (Windows: powercfg /hibernate off), or delete the file',
  },
  logs: {
    level: 'low',
    means: 'Logs of the machine that the image was made on: names, addresses, sometimes more.',
    remedy: 'empty them',
  },
  journal: {
    level: 'low',
    means: "The journal of the machine that the image was made on; its folder is named by that machine's id.",
    remedy: 'delete what is in /var/log/journal',
  },
  'login-records': {
    level: 'low',
    means: 'Who logged in, when, and from where.',
    remedy: 'empty them',
  },
  'temporary-files': {
    level: 'low',
    means: 'Files that were to be gone.',
    remedy: 'delete them',
  },
  'package-cache': {
    level: 'info',
    means: 'Packages and lists that can be fetched again: they make the image larger.',
    remedy: 'apt-get clean and delete /var/lib/apt/lists/*, dnf clean all, or what the packaging system has for it',
  },
  'not-generalised': {
    level: 'medium',
    means: 'Nothing says that Sysprep generalised this Windows: instances would share the identity of one machine.',
    remedy: 'sysprep /generalize /oobe /shutdown, and take the image then',
  },
  'setup-answers': {
    level: 'low',
    means: 'An answer file of Windows Setup, without a password; instances may be configured from it.',
    remedy: 'delete it, unless that is what the image is for',
  },
  // what must be there
  'agent-missing': {
    level: 'high',
    means: 'The image lacks what the rules of whoever checks it require. The level is what the rules say.',
    remedy: 'install it',
  },
} as const satisfies Readonly<Record<string, Rule>>

export type RuleId = keyof typeof rules
