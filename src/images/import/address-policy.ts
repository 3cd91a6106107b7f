import { isIP } from 'node:net'
import { ServiceError } from '../../base/errors.ts'

/**
 * Which addresses an import may connect to: those of the public internet, and those that an operator let in by name.
 * Sources: IANA's registries of special-purpose IPv4 and IPv6 addresses; the metadata services of the clouds.
 */

/** A network: `bytes` of 4 or 16, of which the first `bits` bits count. */
interface Network {
  readonly bytes: Uint8Array
  readonly bits: number
}
interface NamedNetwork extends Network {
  readonly reason: string
}

const network = (cidr: string, reason: string): NamedNetwork => ({ ...parseNetwork(cidr), reason })

/** Never reached by letting a host in by its name: only a network written out in the settings opens them. */
const neverByName: readonly NamedNetwork[] = [
  network('0.0.0.0/8', 'this machine'),
  network('169.254.0.0/16', 'link-local, where clouds keep their metadata'),
  network('100.100.100.200/32', 'a metadata service'),
  network('168.63.129.16/32', 'a metadata service'),
  network('192.0.0.192/32', 'a metadata service'),
  network('224.0.0.0/4', 'multicast'),
  network('240.0.0.0/4', 'reserved'),
  network('::/128', 'this machine'),
  network('::ffff:0:0/96', 'an IPv4 address in IPv6 dress'),
  network('fd00:ec2::/32', 'a metadata service'),
  network('fd20:ce::/32', 'a metadata service'),
  network('fe80::/10', 'link-local'),
  network('ff00::/8', 'multicast'),
]
const notPublic: readonly NamedNetwork[] = [
  network('10.0.0.0/8', 'private'),
  network('100.64.0.0/10', 'shared by carriers'),
  network('127.0.0.0/8', 'loopback'),
  network('172.16.0.0/12', 'private'),
  network('192.0.0.0/24', 'for protocols'),
  network('192.0.2.0/24', 'for documentation'),
  network('192.31.196.0/24', 'for AS112'),
  network('192.52.193.0/24', 'for AMT'),
  network('192.88.99.0/24', '6to4'),
  network('192.168.0.0/16', 'private'),
  network('192.175.48.0/24', 'for AS112'),
  network('198.18.0.0/15', 'for benchmarks'),
  network('198.51.100.0/24', 'for documentation'),
  network('203.0.113.0/24', 'for documentation'),
  network('2001::/23', 'for protocols, Teredo among them'),
  network('2001:db8::/32', 'for documentation'),
  network('2002::/16', '6to4'),
  network('3fff::/20', 'for documentation'),
]
/** Of IPv6, all that is public lies here; loopback, NAT64, unique-local and site-local addresses lie outside. */
const globalUnicast = network('2000::/3', 'public')

export interface AddressPolicy {
  /**
   * Why this address must not be connected to; `undefined` where it may be.
   * @param address as a resolver or a socket gives it; anything that is not an address is refused
   * @param hostAllowed the host was let in by its name
   */
  refusal(address: string, hostAllowed: boolean): string | undefined
}

/** @param allowed networks as CIDR, or single addresses. @throws ServiceError `invalid-request` for one that is not well-formed */
export function addressPolicy(allowed: readonly string[]): AddressPolicy {
  const open = allowed.map(parseNetwork)
  return {
    refusal(address, hostAllowed) {
      const bytes = addressBytes(address)
      if (!bytes) return 'it is not a plain IP address'
      if (open.some((each) => contains(each, bytes))) return undefined
      const never = neverByName.find((each) => contains(each, bytes))
      if (never) return never.reason
      if (hostAllowed) return undefined
      const special = notPublic.find((each) => contains(each, bytes))
      if (special) return special.reason
      return bytes.length === 16 && !contains(globalUnicast, bytes) ? 'not a public IPv6 address' : undefined
    },
  }
}

/** 4 or 16 bytes; `undefined` for what is no address, one with a zone (`fe80::1%eth0`) among it. */
export function addressBytes(address: string): Uint8Array | undefined {
  if (address.includes('%')) return undefined
  const family = isIP(address)
  if (family === 4) return Uint8Array.from(address.split('.'), Number)
  return family === 6 ? ipv6Bytes(address) : undefined
}

/** @param address well-formed: `isIP` said so */
function ipv6Bytes(address: string): Uint8Array {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address)
  const hex = (high: string | undefined, low: string | undefined) => ((Number(high) << 8) | Number(low)).toString(16)
  const plain = dotted ? `${dotted[1]}${hex(dotted[2], dotted[3])}:${hex(dotted[4], dotted[5])}` : address
  const [head = '', tail] = plain.split('::')
  const groupsOf = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)))
  const [before, after] = [groupsOf(head), groupsOf(tail ?? '')]
  const zeros = tail === undefined ? [] : new Array<number>(8 - before.length - after.length).fill(0)
  const bytes = new Uint8Array(16)
  for (const [index, group] of [...before, ...zeros, ...after].entries()) {
    bytes[index * 2] = group >> 8
    bytes[index * 2 + 1] = group & 0xff
  }
  return bytes
}

function parseNetwork(cidr: string): Network {
  const [address = '', bits, ...rest] = cidr.split('/')
  const bytes = addressBytes(address)
  const most = (bytes?.length ?? 0) * 8
  const count = bits === undefined ? most : Number(bits)
  if (!bytes || rest.length > 0 || bits === '' || !Number.isInteger(count) || count < 0 || count > most) {
    throw new ServiceError('invalid-request', `${JSON.stringify(cidr)} is no network: write it as 10.1.0.0/16 or fd12::/64`)
  }
  return { bytes, bits: count }
}

function contains({ bytes, bits }: Network, address: Uint8Array): boolean {
  if (address.length !== bytes.length) return false
  const whole = Math.floor(bits / 8)
  for (let at = 0; at < whole; at += 1) if (address[at] !== bytes[at]) return false
  const rest = bits % 8
  return rest === 0 || (address[whole] ?? 0) >> (8 - rest) === (bytes[whole] ?? 0) >> (8 - rest)
}
