import { readFileSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { normalize } from 'node:path'
import { ServiceError } from '../base/errors.ts'
import { inNetworks } from '../base/networks.ts'
import { formatBytes, GiB, MiB, TiB } from '../base/units.ts'

/**
 * Every setting of the service, in the order in which `imprint serve --help` shows them. A value comes from the settings file,
 * then the environment, then a flag; the last one given wins. The key is the name in the file, `IMPRINT_…` the one in the
 * environment, `--…` the flag.
 */
interface Setting<T> {
  readonly summary: string
  readonly default: T
  readonly parse: (text: string) => T
  readonly show?: (value: T) => string
  /** Not a flag: the command line is visible to everyone on the machine. */
  readonly secret?: true
}
const setting = <T>(s: Setting<T>): Setting<T> => s

export const settingsTable = {
  listen: setting({
    summary: 'address and port to answer on; loopback unless told otherwise',
    default: '127.0.0.1:9797',
    parse: hostAndPort,
  }),
  data: setting({ summary: 'folder for the store and the database', default: './data', parse: text }),
  adminPassword: setting({
    summary: 'password of the first administrator; read on the first start only, made up when absent',
    default: '',
    parse: text,
    secret: true,
  }),
  publicUrl: setting({
    summary: 'address that clients use, where it is not the one they ask (behind a proxy, say)',
    default: '',
    parse: url,
  }),
  tlsCertificate: setting({
    summary: 'PEM file of the certificate chain; with tlsKey the service speaks HTTPS',
    default: '',
    parse: text,
  }),
  tlsKey: setting({ summary: 'PEM file of its private key', default: '', parse: text }),
  region: setting({ summary: 'region name in the service catalog', default: 'RegionOne', parse: text }),
  logLevel: setting({
    summary: 'least level that is logged: trace, debug, info, warn, error',
    default: 'info',
    parse: oneOf('trace', 'debug', 'info', 'warn', 'error'),
  }),
  drainSeconds: setting({ summary: 'how long a stop waits for transfers to finish', default: 300, parse: count(0, 86_400) }),
  tokenHours: setting({ summary: 'how long a token is good for', default: 24, parse: count(1, 8760) }),
  passwordPasses: setting({
    summary: 'passes of scrypt over 16 MiB for each password that is set from now on; fewer than 5 are weaker than OWASP advises',
    default: 5,
    parse: count(1, 100),
  }),
  memory: setting({
    summary: 'memory for buffers and caches of the store',
    default: 128 * MiB,
    parse: bytes(32 * MiB, 64 * GiB),
    show: formatBytes,
  }),
  workers: setting({ summary: 'worker threads; 0 = one for each processor', default: 0, parse: count(0, 256) }),
  packedBytes: setting({
    summary: 'room for downloads that are compressed before they are sent: made once, and kept for an hour',
    default: 20 * GiB,
    parse: bytes(MiB, 2 ** 53 - 1),
    show: formatBytes,
  }),
  packsAtOnce: setting({
    summary: 'how many of them are made at once; 0 = one for two processors',
    default: 0,
    parse: count(0, 256),
  }),
  maxImageBytes: setting({ summary: 'largest image', default: TiB, parse: bytes(MiB, 8192 * TiB), show: formatBytes }),
  quotaImages: setting({ summary: 'private images of a project; -1 = no limit', default: 50, parse: count(-1, 2 ** 31) }),
  quotaBytes: setting({ summary: 'bytes of all images of a project; -1 = no limit', default: -1, parse: bytes(-1, 2 ** 53 - 1) }),
  quotaUploads: setting({
    summary: 'images of a project that receive bytes at once; -1 = no limit',
    default: 100,
    parse: count(-1, 2 ** 31),
  }),
  quotaStaged: setting({ summary: 'staged bytes of a project; -1 = no limit', default: -1, parse: bytes(-1, 2 ** 53 - 1) }),
  quotaScratch: setting({
    summary: 'bytes of all writable exports of a project, as large as they are made; -1 = no limit',
    default: 100 * GiB,
    parse: bytes(-1, 2 ** 53 - 1),
    show: formatBytes,
  }),
  quotaInstances: setting({ summary: 'instances of a project; -1 = no limit', default: 10, parse: count(-1, 2 ** 31) }),
  quotaCores: setting({
    summary: 'processors of all instances of a project; -1 = no limit',
    default: 20,
    parse: count(-1, 2 ** 31),
  }),
  quotaRam: setting({
    summary: 'memory of all instances of a project; -1 = no limit',
    default: 50 * GiB,
    parse: bytes(-1, 2 ** 53 - 1),
    show: formatBytes,
  }),
  quotaVolumes: setting({ summary: 'volumes of a project; -1 = no limit', default: 10, parse: count(-1, 2 ** 31) }),
  quotaVolumeSnapshots: setting({
    summary: 'snapshots of volumes of a project; -1 = no limit',
    default: 10,
    parse: count(-1, 2 ** 31),
  }),
  quotaVolumeBytes: setting({
    summary: 'bytes of all volumes of a project and their snapshots, as large as they are made; -1 = no limit',
    default: 1000 * GiB,
    parse: bytes(-1, 2 ** 53 - 1),
    show: formatBytes,
  }),
  volumeReserve: setting({
    summary: 'bytes of the file system that are promised to no volume and no instance',
    default: GiB,
    parse: bytes(0, 2 ** 53 - 1),
    show: formatBytes,
  }),
  volumePromisePercent: setting({
    summary: 'how much of the rest is promised to volumes and instances, in percent; beyond 100 it may be found full',
    default: 100,
    parse: count(1, 10_000),
  }),
  instanceAddress: setting({
    summary: 'address of this machine on which forwarded ports of instances are reached; loopback unless told otherwise',
    default: '127.0.0.1',
    parse: ipv4,
  }),
  instancePorts: setting({
    summary: 'ports of this machine that may be forwarded to instances',
    default: '1024-32767', // above what needs privileges, below what Linux gives to clients
    parse: portRange,
  }),
  instanceNetwork: setting({
    summary:
      'what guests reach: open, all that this machine reaches, its loopback included; isolated, nothing by themselves; or bridge=NAME, as machines in that bridge of this machine',
    default: 'open',
    parse: guestNetwork,
  }),
  instanceStopSeconds: setting({
    summary: 'how long the guest of an instance may take to shut down before it is switched off',
    default: 60,
    parse: count(0, 3600),
  }),
  instanceAccelerator: setting({
    summary: 'what runs the processors of instances: kvm, tcg (by software), or auto, which tries',
    default: 'auto',
    parse: oneOf('auto', 'kvm', 'tcg'),
  }),
  instanceHosts: setting({
    summary: 'further hosts that run instances, comma-separated, as name=socket of its agent (imprint agent)',
    default: [] as string[],
    parse: hosts,
  }),
  instanceUser: setting({
    summary:
      "user of this machine, by name, whom QEMU runs as, where the service is root; the service's own unless told otherwise",
    default: '',
    parse: text,
  }),
  instanceCgroup: setting({
    summary: 'control group of version 2, a folder below /sys/fs/cgroup, that is divided among instances to bound them',
    default: '',
    parse: absolutePath,
  }),
  qemu: setting({
    summary: 'program that runs instances, name or path; qemu-system-x86_64 unless told otherwise',
    default: '',
    parse: text,
  }),
  netboot: setting({
    summary: 'folder of the system that machines start from the network; netboot in the data folder unless told otherwise',
    default: '',
    parse: text,
  }),
  netbootNetworks: setting({
    summary: 'networks, as CIDR, from which machines may start from the network; private ones unless told otherwise',
    default: [
      '127.0.0.0/8',
      '10.0.0.0/8',
      '172.16.0.0/12',
      '192.168.0.0/16',
      '169.254.0.0/16',
      '::1/128',
      'fc00::/7',
      'fe80::/10',
    ],
    parse: networks,
  }),
  importHosts: setting({
    summary: 'hosts that imports may fetch from although they are not public, comma-separated',
    default: [] as string[],
    parse: list,
  }),
  importNetworks: setting({ summary: 'networks likewise, as CIDR', default: [] as string[], parse: list }),
  importPorts: setting({ summary: 'ports that imports may use', default: ['80', '443'], parse: list }),
  propertyProtections: setting({ summary: 'file of property protection rules', default: '', parse: text }),
  collectHours: setting({
    summary: 'hours between collections of what nothing uses; 0 = only by command',
    default: 6,
    parse: count(0, 8760),
  }),
  nbdSocket: setting({
    summary: 'unix socket on which disks are served over NBD; nbd.sock in the data folder unless told otherwise',
    default: '',
    parse: text,
  }),
  nbdListen: setting({ summary: 'address and port on which they are served over TCP too', default: '', parse: hostAndPort }),
  nbdTlsCertificate: setting({
    summary: 'PEM file of the certificate chain; with nbdTlsKey, NBD over TCP is in TLS only',
    default: '',
    parse: text,
  }),
  nbdTlsKey: setting({ summary: 'PEM file of its private key', default: '', parse: text }),
  nbdTlsClientCa: setting({
    summary: 'PEM file of the authority whose certificates NBD clients must show',
    default: '',
    parse: text,
  }),
  nbdPskFile: setting({
    summary: 'pre-shared keys of NBD clients, user:key a line, as psktool writes them; NBD over TCP is in TLS only',
    default: '',
    parse: text,
  }),
  nbdAllowClearText: setting({
    summary: 'yes: NBD may be reached from other machines without TLS',
    default: 'no',
    parse: oneOf('yes', 'no'),
  }),
} as const

type Table = typeof settingsTable
export type SettingName = keyof Table
export type Settings = {
  readonly [Name in SettingName]: Table[Name]['default'] extends readonly string[]
    ? readonly string[]
    : Table[Name]['default'] extends number
      ? number
      : string
}

export const environmentName = (name: string): string =>
  `IMPRINT_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
export const flagName = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/**
 * @param flags values by setting name, as the command line gave them
 * @param file the settings file, JSON; absent: `IMPRINT_CONFIG`, or none
 * @throws ServiceError `invalid-request` naming the setting, where it came from, and what it takes
 */
export function readSettings(
  flags: Readonly<Partial<Record<SettingName, string>>>,
  environment: Readonly<Record<string, string | undefined>>,
  file = environment.IMPRINT_CONFIG,
): Settings {
  const fromFile = file ? readFile(file) : {}
  for (const key of Object.keys(fromFile)) {
    if (!Object.hasOwn(settingsTable, key)) {
      throw new ServiceError(
        'invalid-request',
        `the settings file names an unknown setting "${key}"; imprint serve --help lists them all`,
      )
    }
  }
  const readOne = (name: SettingName): unknown => {
    const { default: byDefault, parse } = settingsTable[name] as Setting<unknown>
    const given = [
      [flags[name], flagName(name)],
      [environment[environmentName(name)], environmentName(name)],
      [fromFile[name], `"${name}" in the settings file`],
    ].find(([value]) => value !== undefined && value !== '')
    if (!given) return byDefault
    try {
      return parse(String(given[0]))
    } catch (error) {
      throw new ServiceError('invalid-request', `${given[1]}: ${(error as Error).message}`)
    }
  }
  return Object.fromEntries((Object.keys(settingsTable) as SettingName[]).map((name) => [name, readOne(name)])) as Settings
}

function readFile(path: string): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw new Error('it must hold one JSON object')
    return parsed as Record<string, unknown>
  } catch (cause) {
    throw new ServiceError('invalid-request', `cannot read the settings file ${path}: ${(cause as Error).message}`, {}, { cause })
  }
}

function text(value: string): string {
  return value
}
function absolutePath(value: string): string {
  if (!value.startsWith('/')) throw new Error('takes a path from the root, as /sys/fs/cgroup/imprint')
  return value.replace(/(?<=.)\/+$/, '')
}
function list(value: string): string[] {
  return value
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)
}
function guestNetwork(value: string): string {
  if (value === 'open' || value === 'isolated' || /^bridge=[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(value)) return value
  throw new Error('takes open, isolated, or bridge=NAME, as bridge=br0')
}
function networks(value: string): string[] {
  const cidrs = list(value)
  inNetworks(cidrs)
  return cidrs
}
/** Names that stand in records, and paths that `imprint agent` told. */
function hosts(value: string): string[] {
  const all = list(value)
  for (const each of all) {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}=\/.+$/.test(each)) throw new Error('takes name=socket, as left=/srv/left/agent.sock')
  }
  const names = all.map((each) => each.split('=', 1)[0])
  if (new Set(names).size < names.length) throw new Error('names a host twice')
  const sockets = all.map((each) => normalize(each.slice(each.indexOf('=') + 1)))
  if (new Set(sockets).size < sockets.length) throw new Error('has one agent under two names: its machines would be of both')
  return all
}
function url(value: string): string {
  if (!/^https?:$/.test(new URL(value).protocol)) throw new Error('takes an http or https address')
  return value.replace(/\/+$/, '')
}
function hostAndPort(value: string): string {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:]+):(\d{1,5})$/.exec(value)
  if (!match || Number(match[2]) > 65_535) throw new Error('takes host:port, as 127.0.0.1:9797 or [::1]:9797')
  return value
}
function ipv4(value: string): string {
  if (!isIPv4(value)) throw new Error('takes an IPv4 address, as 127.0.0.1, or 0.0.0.0 for all of this machine')
  return value
}

function portRange(value: string): string {
  const [, first = 0, last = 0] = (/^(\d{1,5})-(\d{1,5})$/.exec(value) ?? []).map(Number)
  if (!(first >= 1 && first <= last && last <= 65_535)) throw new Error('takes first-last, as 20000-29999')
  return value
}

function oneOf(...words: readonly string[]): (value: string) => string {
  return (value) => {
    if (!words.includes(value)) throw new Error(`takes one of ${words.join(', ')}`)
    return value
  }
}
function count(least: number, most: number): (value: string) => number {
  return (value) => {
    const number = Number(value)
    if (!Number.isSafeInteger(number) || number < least || number > most)
      throw new Error(`takes a whole number from ${least} to ${most}`)
    return number
  }
}
function bytes(least: number, most: number): (value: string) => number {
  const units: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40, P: 2 ** 50 }
  return (value) => {
    const match = /^(-?\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?$/i.exec(value)
    const number = match ? Math.floor(Number(match[1]) * units[match[2]!.toUpperCase()]!) : Number.NaN
    if (!(number >= least && number <= most))
      throw new Error(`takes bytes, as 512M or 20G, from ${formatBytes(least)} to ${formatBytes(most)}`)
    return number
  }
}
