/** What runs machines, from the settings. With wiring.ts the only file that names an adapter. */
import { chmod, lstat, readdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { ServiceError } from './base/errors.ts'
import { absentHypervisor } from './instances/hypervisor/absent/absent-hypervisor.ts'
import { Hosts } from './instances/hypervisor/hosts/hosts.ts'
import { divide } from './instances/hypervisor/qemu/cgroup.ts'
import type { ProcessUser } from './instances/hypervisor/qemu/process.ts'
import { QemuHypervisor } from './instances/hypervisor/qemu/qemu-hypervisor.ts'
import { assertReaches, systemUser } from './instances/hypervisor/qemu/system-user.ts'
import { assertBridge } from './instances/hypervisor/qemu/taps.ts'
import { RemoteHypervisor } from './instances/hypervisor/remote/remote-hypervisor.ts'
import type { MachineHost, Machines, NamedHost } from './instances/ports.ts'
import type { Settings } from './settings/settings.ts'

/** What keeps a guest that broke out of its QEMU from the rest of the host. */
export interface Confinement {
  readonly user?: ProcessUser
  readonly cgroup?: string
  /** By which the machines in `cgroup` are bounded. */
  readonly controllers: readonly string[]
}

/** @throws ServiceError `invalid-request` for a setting that cannot be met here, saying what would */
export async function confinement(settings: Settings): Promise<Confinement> {
  const { instanceUser, instanceCgroup } = settings
  const user = instanceUser ? await systemUser(instanceUser) : undefined
  const bridge = bridgeOf(settings)
  if (bridge !== null) await assertBridge(bridge, user)
  return {
    ...(user ? { user } : {}),
    ...(instanceCgroup ? { cgroup: instanceCgroup } : {}),
    controllers: instanceCgroup ? await divide(instanceCgroup) : [],
  }
}

/** In which guests are; null: in networks of their own. */
export const bridgeOf = ({ instanceNetwork }: Settings): string | null => /^bridge=(.+)$/.exec(instanceNetwork)?.[1] ?? null

/** @throws ServiceError `invalid-request` where QEMU's user cannot get at the socket */
export async function assertReachable({ user }: Confinement, socketPath: string): Promise<void> {
  if (user) await assertReaches(user, socketPath)
}

/**
 * Others may pass through the folder, and find nothing there that they may open but what is excepted, which sees to itself. What comes
 * to be from now on is for this process alone.
 */
export async function letPass(folder: string, except: readonly string[]): Promise<void> {
  process.umask(0o077)
  for (const name of await readdir(folder)) {
    if (except.includes(name)) continue
    const found = await lstat(join(folder, name))
    if (!found.isSymbolicLink() && (found.mode & 0o077) !== 0) await chmod(join(folder, name), found.mode & 0o700)
  }
  await chmod(folder, 0o711)
}

/** Where there is no QEMU the service runs without it: the compute API says what is missing when a machine is to be started. */
export async function openHypervisor(
  settings: Settings,
  { user, cgroup, controllers }: Confinement,
  folder: string,
  log: Logger,
  onProblem: (error: unknown) => void,
): Promise<MachineHost> {
  const { qemu: program, instanceAccelerator: accelerator } = settings
  try {
    const hypervisor = await QemuHypervisor.open({
      folder,
      onProblem,
      ...(program ? { program } : {}),
      ...(accelerator === 'kvm' || accelerator === 'tcg' ? { accelerator } : {}),
      ...(user ? { user } : {}),
      ...(cgroup ? { cgroup } : {}),
    })
    const { version, accelerators } = hypervisor.abilities
    const bounds = cgroup ? { boundedBy: controllers } : {}
    log.info({ event: 'hypervisor', type: hypervisor.type, version, accelerators, ...(user ?? {}), ...bounds })
    if (cgroup && controllers.length === 0) {
      const message = `${cgroup} bounds nothing: neither memory nor cpu nor pids is delegated to it`
      log.warn({ event: 'instances-unbounded', message })
    }
    return hypervisor
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    log.info({ event: 'no-hypervisor', message }) // images are served all the same
    return absentHypervisor(new ServiceError('unavailable', message, {}, { cause: error }))
  }
}

/**
 * The hosts of a service as one: its own, and those of the setting, of which any may be away.
 * @throws ServiceError `invalid-request` where another one has the service's own name
 */
export async function joinHosts(
  own: MachineHost,
  others: readonly string[],
  placeOf: (id: string) => Promise<string | null>,
  onProblem: (error: unknown) => void,
): Promise<{ readonly hypervisor: Machines; readonly hosts: readonly [NamedHost, ...NamedHost[]] }> {
  const named = others.map((other) => ({ name: other.split('=', 1)[0] ?? '', socketPath: other.slice(other.indexOf('=') + 1) }))
  const ownName = hostname()
  if (named.some(({ name }) => name === ownName)) {
    throw new ServiceError('invalid-request', `"${ownName}" is this service's own host: name the other one otherwise`)
  }
  const opened = named.map(async ({ name, socketPath }): Promise<NamedHost> => {
    return { name, machines: await RemoteHypervisor.open({ socketPath, onProblem: (error) => onProblem(ofHost(name, error)) }) }
  })
  const hosts = [{ name: ownName, machines: own }, ...(await Promise.all(opened))] as const
  return { hosts, hypervisor: new Hosts({ hosts, placeOf }) }
}

/** Which host it is, the connection does not know. */
const ofHost = (name: string, error: unknown): ServiceError => {
  const why = error instanceof Error ? error.message : String(error)
  return new ServiceError('unavailable', `host "${name}": ${why}`, { host: name }, { cause: error })
}
