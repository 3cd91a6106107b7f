import type { NewCheck, VisitedFile } from './look.ts'

const leases =
  /^\/var\/(?:lib|db)\/(?:dhcp|dhclient|dhcp3|dhcpcd5?|udhcpd|wicked|connman)\/|^\/var\/lib\/NetworkManager\/[^/]+\.lease$|^\/var\/db\/dhcpcd-|\/dhclient[^/]*\.leases?$/
const MAC = '["\']?(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}'

interface NetworkFile {
  readonly at: RegExp
  readonly mac?: RegExp
  readonly fixed?: RegExp
  readonly password?: RegExp
}
/** Expressions are held against one line each, and anchored. */
const networkFiles: readonly NetworkFile[] = [
  { at: /^\/etc\/udev\/rules\.d\/[^/]+\.rules$/, mac: new RegExp(`^[^#]*ATTR\\{address\\}==${MAC}`, 'i') },
  {
    at: /^\/etc\/netplan\/[^/]+\.yaml$/,
    mac: new RegExp(`^[ \\t-]*macaddress:[ \\t]*${MAC}`, 'i'),
    fixed:
      /^[ \t-]*addresses:[ \t]*\[[ \t"']*[0-9a-f]|^[ \t]*-[ \t]*["']?(?:\d{1,3}\.){3}\d{1,3}\/\d|^[ \t]*-[ \t]*["']?[0-9a-f]{1,4}:[0-9a-f:]{1,40}\/\d/i,
    password: /^[ \t"'-]*(?:password|key):[ \t]*["']?[^ \t"'$]/,
  },
  {
    at: /^\/etc\/sysconfig\/network(?:-scripts)?\/ifcfg-(?!lo$)[^/]+$/,
    mac: new RegExp(`^[ \\t]*(?:HWADDR|MACADDR|LLADDR)=${MAC}`, 'i'),
    fixed: /^[ \t]*(?:IPADDR|IPV6ADDR)[0-9_]{0,4}=["']?[0-9a-f]/i,
  },
  { at: /^\/etc\/sysconfig\/network-scripts\/keys-[^/]+$/, password: /^[ \t]*(?:WPA_PSK|KEY[0-9_A-Z]{0,40})=[^ \t]/ },
  {
    at: /^\/etc\/network\/interfaces(?:\.d\/[^/]+)?$/,
    mac: new RegExp(`^[ \\t]*(?:hwaddress|hwaddress[ \\t]+ether)[ \\t]+${MAC}`, 'i'),
    fixed: /^[ \t]*iface[ \t]+(?!lo[ \t])[^ \t]{1,64}[ \t]+inet6?[ \t]+static/,
    password: /^[ \t]*wpa-(?:psk|password)[ \t]+[^ \t]/,
  },
  {
    at: /^\/etc\/systemd\/network\/[^/]+\.(?:link|network|netdev)$/,
    mac: new RegExp(`^[ \\t]*(?:Permanent)?MACAddress[ \\t]*=[ \\t]*${MAC}`, 'i'),
    fixed: /^[ \t]*Address[ \t]*=[ \t]*[0-9a-f]/i,
  },
  {
    at: /^\/(?:etc|usr\/lib|run)\/NetworkManager\/system-connections\/[^/]+$/,
    mac: new RegExp(`^[ \\t]*(?:cloned-)?mac-address[ \\t]*=[ \\t]*${MAC}`, 'i'),
    fixed: /^[ \t]*address(?:1|es1)?[ \t]*=[ \t]*[0-9a-f]/i,
    password: /^[ \t]*(?:psk|password|wep-key[0-3]|leap-password|private-key-password|secret)[ \t]*=[ \t]*[^ \t]/,
  },
  {
    at: /^\/etc\/wpa_supplicant\/[^/]+\.conf$|^\/var\/lib\/iwd\/[^/]+$/,
    password: /^[ \t]*(?:psk|password|PreSharedKey|Passphrase)[ \t]*=[ \t]*[^ \t]/,
  },
]
const proxyFiles =
  /^\/etc\/(?:apt\/apt\.conf(?:\.d\/[^/]+)?|environment|profile\.d\/[^/]+|yum\.conf|dnf\/dnf\.conf|wgetrc|sysconfig\/proxy|systemd\/system\.conf\.d\/[^/]+)$/
const PROXY =
  /^[ \t]*(?:export[ \t]+)?(?:Acquire::https?::Proxy[ \t]+["'](?!DIRECT)|(?:https?_proxy|HTTPS?_PROXY|proxy)[ \t]*=[ \t]*["']?)(?:https?|socks5?h?):\/\/[^ \t"']/
const MAX_LINE = 4096

/** What the network of the machine that the image was made on left. */
export const network: NewCheck = (look) => ({
  async places() {
    const found = await look.find('/etc/resolv.conf', false)
    if (found?.node.kind !== 'file') return
    const servers = ((await look.text('/etc/resolv.conf')) ?? '')
      .split('\n')
      .flatMap((line) => /^[ \t]*nameserver[ \t]+([0-9a-fA-F.:%]{2,64})/.exec(line.slice(0, MAX_LINE))?.[1] ?? [])
      .filter((server) => !server.startsWith('127.') && server !== '::1')
    if (servers.length > 0) look.add('resolv-conf', '/etc/resolv.conf', `name servers: ${servers.slice(0, 4).join(', ')}`)
  },
  async file(file) {
    if (file.bytes === 0) return
    if (leases.test(file.path)) return look.add('dhcp-lease', file.path, 'a lease')
    if (proxyFiles.test(file.path) && (await hasLine(file, PROXY))) look.add('proxy', file.path, 'a proxy')
    for (const { at, mac, fixed, password } of networkFiles) {
      if (!at.test(file.path)) continue
      if (mac && (await hasLine(file, mac))) look.add('network-mac', file.path, 'a MAC address')
      if (fixed && (await hasLine(file, fixed))) look.add('network-static', file.path, 'a fixed address')
      if (password && (await hasLine(file, password))) look.add('network-password', file.path, 'a password of a network')
    }
  },
})

async function hasLine(file: VisitedFile, line: RegExp): Promise<boolean> {
  return ((await file.text()) ?? '').split('\n').some((each) => line.test(each.slice(0, MAX_LINE)))
}
