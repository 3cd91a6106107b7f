import { BlockList, isIP } from 'node:net'

/**
 * @param cidrs `10.0.0.0/8`, `fd00::/8`, or single addresses
 * @returns whether an address, as a socket gives it, is in one of them
 * @throws Error naming the one that is none
 */
export function inNetworks(cidrs: readonly string[]): (address: string) => boolean {
  const list = new BlockList()
  for (const cidr of cidrs) {
    const [address = '', bits = '', ...rest] = cidr.split('/')
    const family = familyOf(address)
    const most = family === 'ipv4' ? 32 : 128
    const prefix = cidr.includes('/') ? bits : String(most)
    if (!family || rest.length > 0 || !/^\d{1,3}$/.test(prefix) || Number(prefix) > most) {
      throw new Error(`"${cidr}" is no network; networks are written as 10.0.0.0/8 or fd00::/8`)
    }
    list.addSubnet(address, Number(prefix), family)
  }
  return (address) => {
    const bare = address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '') // as IPv6 sockets show IPv4; without its zone
    const family = familyOf(bare)
    return family !== undefined && list.check(bare, family)
  }
}

const familyOf = (address: string): 'ipv4' | 'ipv6' | undefined => (({ 4: 'ipv4', 6: 'ipv6' }) as const)[isIP(address) as 4 | 6]
