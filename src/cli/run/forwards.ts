import { UsageError } from '../exit-codes.ts'
import { safeText } from '../safe-text.ts'

/** The metadata by which the service is asked for forwarded ports: docs/compute.md, "Network". */
export const FORWARDS_KEY = 'imprint:forwards'

/**
 * `8080:80`, `80` (any port of the host), `5353:53/udp` → as the service takes them.
 * @param guestPorts more, each at any port of the host where no other leads there
 * @throws UsageError
 */
export function forwardsFrom(ports: readonly string[], guestPorts: readonly number[] = []): string {
  const asked = ports.map((text) => {
    const [, host, guest, protocol = 'tcp'] = /^(?:(\d{1,5}):)?(\d{1,5})(?:\/(tcp|udp))?$/.exec(text) ?? []
    if (guest === undefined || Number(host ?? 0) > 65_535 || Number(guest) > 65_535 || Number(guest) < 1) {
      throw new UsageError(`--port takes HOST:GUEST, or GUEST for any port of the host, as 8080:80; not "${safeText(text)}"`)
    }
    return { protocol, host: Number(host ?? 0), guest: Number(guest) }
  })
  const missing = guestPorts.filter((port) => !asked.some(({ protocol, guest }) => protocol === 'tcp' && guest === port))
  const all = [...asked, ...missing.map((guest) => ({ protocol: 'tcp', host: 0, guest }))]
  return all.map(({ protocol, host, guest }) => `${protocol}:${host}:${guest}`).join(',')
}
