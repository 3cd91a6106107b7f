import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import { MAX_NETWORKS } from '../machine-spec.ts'
import type { KeptSpec } from './machine-folder.ts'
import type { QemuHost } from './qemu-host.ts'

/**
 * Network cards of machines in a bridge of the host: a tap device each, which we make, give to QEMU's user and put into the bridge, and which
 * goes with the process. Its name is made of the folder of machines, the machine and the card, so whoever finds a machine's folder knows which
 * taps may be left of it. By ip(8) of iproute2, since Node cannot speak to the kernel of devices.
 */

const NAMES = '/sys/class/net'
/** `IFNAMSIZ` of the kernel is 16, with a zero at the end. */
const NAME_CHARACTERS = 15
const PREFIX = 'imp'
const IFF_UP = 1
/** Where administrators' programs lie, also for a service whose PATH does not name them. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

type TapHost = Pick<QemuHost, 'root' | 'user'>

export const tapName = (root: string, machineId: string, card: number): string =>
  `${PREFIX}${createHash('sha256').update(`${root} ${machineId} ${card}`).digest('hex')}`.slice(0, NAME_CHARACTERS)

/** @throws ServiceError `unavailable`, in the words of ip(8). Nothing is left then */
export async function makeTaps(host: TapHost, { id, networks }: Pick<KeptSpec, 'id' | 'networks'>): Promise<void> {
  const bridged = networks.flatMap(({ bridge, mac }, card) => (bridge === undefined ? [] : [{ bridge, mac, card }]))
  if (bridged.length === 0) return
  await removeTaps(host, id) // of a start that was cut short
  const lines = bridged.flatMap(({ bridge, mac, card }) => {
    const tap = tapName(host.root, id, card)
    return [
      `tuntap add dev ${tap} mode tap${host.user ? ` user ${host.user.uid}` : ''}`,
      `link set dev ${tap} alias imprint-${id}`,
      // not the guest's own; high, since a bridge without an address of its own takes the lowest that is in it
      `link set dev ${tap} address fe${mac.slice(2)}`,
      `link set dev ${tap} addrgenmode none`, // the host has no address there
      `link set dev ${tap} master ${bridge}`,
      `link set dev ${tap} up`,
    ]
  })
  try {
    await ip(lines)
  } catch (error) {
    await removeTaps(host, id)
    const bridges = [...new Set(bridged.map(({ bridge }) => bridge))].join(', ')
    const message = `The machine ${id} does not get into the bridge ${bridges}: ${(error as Error).message}`
    throw new ServiceError('unavailable', message, { id }, { cause: error })
  }
  failpoint('machine:tapped')
}

/** Of a machine that has no process. What is not there is gone already. @throws ServiceError `unavailable` */
export async function removeTaps({ root }: TapHost, machineId: string): Promise<void> {
  const names = Array.from({ length: MAX_NETWORKS }, (_, card) => tapName(root, machineId, card))
  const there = await Promise.all(names.map(async (name) => ((await exists(join(NAMES, name, 'tun_flags'))) ? [name] : [])))
  const lines = there.flat().map((name) => `link delete dev ${name}`)
  if (lines.length === 0) return
  await ip(lines).catch((error: Error) => {
    throw new ServiceError('unavailable', `Taps of the machine ${machineId} cannot be removed: ${error.message}`, {
      id: machineId,
    })
  })
}

/**
 * Whether machines can be in the bridge, looked at before any is.
 * @throws ServiceError `invalid-request`, saying which command is missing
 */
export async function assertBridge(bridge: string, user: QemuHost['user']): Promise<void> {
  const must = (holds: boolean, problem: string): void => {
    if (!holds) throw new ServiceError('invalid-request', `instanceNetwork: ${problem}`)
  }
  must(
    process.getuid?.() === 0,
    `only root can put machines into the bridge ${bridge}; run the service as root, and name an instanceUser`,
  )
  const here = join(NAMES, bridge)
  must(
    await exists(here),
    `there is no bridge ${bridge}; make it: ip link add ${bridge} type bridge forward_delay 0 && ip link set ${bridge} up`,
  )
  must(
    await exists(join(here, 'bridge')),
    `${bridge} is no bridge; make one: ip link add br0 type bridge forward_delay 0 && ip link set br0 up`,
  )
  const flags = Number.parseInt(await readFile(join(here, 'flags'), 'latin1'), 16)
  must((flags & IFF_UP) !== 0, `the bridge ${bridge} is down; bring it up: ip link set ${bridge} up`)
  const device = await stat('/dev/net/tun').catch(() => null)
  must(device !== null, 'there is no /dev/net/tun, by which taps are opened; load the driver: modprobe tun')
  const isOpenToAll = device !== null && (device.mode & 0o006) === 0o006
  must(!user || isOpenToAll, "/dev/net/tun is closed to QEMU's user; open it: chmod o+rw /dev/net/tun")
  await ip([`link show dev ${bridge}`]).catch((error: Error) => must(false, error.message))
}

/** One after the other; the first failure ends it. @throws Error in the words of ip(8) */
function ip(lines: readonly string[]): Promise<void> {
  return new Promise((done, failed) => {
    const child = execFile('ip', ['-batch', '-'], { env: { PATH, LC_ALL: 'C' } }, (error, _, said) => {
      if (!error) done()
      else if (error.code === 'ENOENT') failed(new Error('there is no program ip; install iproute2'))
      else failed(new Error(said.split('\n')[0] || error.message))
    })
    child.stdin?.on('error', () => {}) // it may be gone before it has read all
    child.stdin?.end(`${lines.join('\n')}\n`)
  })
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
