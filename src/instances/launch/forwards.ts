import { ServiceError } from '../../base/errors.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import type { PortForward } from '../hypervisor/hypervisor.ts'
import type { InstancePorts } from '../ports.ts'
import { forwardedPorts } from '../store.ts'

/**
 * Ports of a guest that are reached at the host: our extension, as a user-mode network has no addresses that anybody could
 * reach. They are asked for by metadata when the instance is made,
 *
 *   imprint:forwards = tcp:8080:80,tcp:0:22        protocol:port of the host:port of the guest, 0 for any free port
 *
 * and stand there with the ports that were chosen. The address at the host is a setting, never a user's choice.
 */
export const FORWARDS_KEY = 'imprint:forwards'

export type WantedForward = Pick<PortForward, 'protocol' | 'hostPort' | 'guestPort'>

const MAX_FORWARDS = 16 // more do not fit into a value of metadata
/** Any port is taken from the upper end of the range, where no well-known service is looked for. */
const CHOICE = 8192
const TRIES = 64

/** @throws ServiceError `invalid-request` */
export function forwardsFrom(metadata: Readonly<Record<string, string>>): readonly WantedForward[] {
  const text = Object.hasOwn(metadata, FORWARDS_KEY) ? (metadata[FORWARDS_KEY] ?? '') : ''
  const parts = text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)
  if (parts.length > MAX_FORWARDS) refuse(`at most ${MAX_FORWARDS} ports are forwarded`)
  const forwards = parts.map((part) => {
    const [, protocol, host, guest] = /^(tcp|udp):(\d{1,5}):(\d{1,5})$/.exec(part) ?? refuse(`${JSON.stringify(part)} is none`)
    const forward = { protocol: protocol as 'tcp' | 'udp', hostPort: Number(host), guestPort: Number(guest) }
    if (forward.hostPort > 65_535 || forward.guestPort < 1 || forward.guestPort > 65_535) refuse('a port is at most 65535')
    return forward
  })
  const named = forwards.filter(({ hostPort }) => hostPort !== 0).map(({ protocol, hostPort }) => `${protocol}:${hostPort}`)
  if (new Set(named).size < named.length) refuse('a port of the host can be forwarded once')
  return forwards
}

export const forwardsText = (forwards: readonly WantedForward[]): string =>
  forwards.map(({ protocol, hostPort, guestPort }) => `${protocol}:${hostPort}:${guestPort}`).join(',')

/** Ports of the host are one instance's: as many others are drawn. */
export function withFreshPorts(metadata: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const forwards = forwardsFrom(metadata).map((forward) => ({ ...forward, hostPort: 0 }))
  return forwards.length === 0 ? metadata : { ...metadata, [FORWARDS_KEY]: forwardsText(forwards) }
}

/**
 * Finds a port of the host for each, looking at what listens there now. Whoever takes them in the catalog then does so first, or
 * is refused.
 * @param taken ports that were chosen in the same request; those chosen now are added
 * @throws ServiceError `denied` for a port outside the range; `conflict` for one that is in use; `unavailable` where none is free
 */
export async function chooseHostPorts(
  ports: Pick<InstancePorts, 'catalog' | 'hostPorts' | 'settings'>,
  wanted: readonly WantedForward[],
  taken: Set<string>,
): Promise<readonly PortForward[]> {
  const chosen: PortForward[] = []
  for (const { protocol, hostPort, guestPort } of wanted) {
    const forward = { protocol, guestPort, hostAddress: ports.settings.forwardAddress }
    const port = hostPort === 0 ? await anyPort(ports, forward, taken) : await thisPort(ports, { ...forward, hostPort }, taken)
    taken.add(`${protocol}/${port}`)
    chosen.push({ ...forward, hostPort: port })
  }
  return chosen
}

type Ports = Parameters<typeof chooseHostPorts>[0]

async function thisPort(ports: Ports, forward: PortForward, taken: ReadonlySet<string>): Promise<number> {
  const { hostPort, protocol } = forward
  const { first, last } = ports.settings.forwardPorts
  if (hostPort < first || hostPort > last) {
    throw new ServiceError(
      'denied',
      `${FORWARDS_KEY}: this host forwards its ports ${first} to ${last}; choose one of these, or 0`,
    )
  }
  if (await isFree(ports, ports.catalog.documents, forward, taken)) return hostPort
  throw new ServiceError(
    'conflict',
    `${FORWARDS_KEY}: port ${hostPort}/${protocol} of the host is in use: choose another, or 0`,
    {
      port: hostPort,
    },
  )
}

async function anyPort(ports: Ports, forward: Omit<PortForward, 'hostPort'>, taken: ReadonlySet<string>): Promise<number> {
  const { first, last } = ports.settings.forwardPorts
  const from = Math.max(first, last - CHOICE + 1)
  for (let tries = 0; tries < TRIES; tries += 1) {
    const hostPort = from + Math.floor(Math.random() * (last - from + 1))
    if (await isFree(ports, ports.catalog.documents, { ...forward, hostPort }, taken)) return hostPort
  }
  throw new ServiceError('unavailable', `${FORWARDS_KEY}: found no free port of the host between ${from} and ${last}: try again`)
}

const isFree = async (
  { hostPorts }: Ports,
  documents: DocumentReader,
  forward: PortForward,
  taken: ReadonlySet<string>,
): Promise<boolean> =>
  !taken.has(`${forward.protocol}/${forward.hostPort}`) &&
  !(await forwardedPorts.isTaken(documents, forward)) &&
  (await hostPorts.isFree(forward))

function refuse(problem: string): never {
  throw new ServiceError(
    'invalid-request',
    `${FORWARDS_KEY}: ${problem}; it takes protocol:port of the host:port of the guest, as tcp:8080:80,tcp:0:22`,
  )
}
