import type { PlaceLimits } from '../base/places.ts'
import { TaskLines } from '../base/task-lines.ts'
import type { Catalog } from '../store/catalog/catalog.ts'
import { SerialConsoles } from './console/serial-consoles.ts'
import { loadStandardFlavors } from './flavors/standard.ts'
import { HostReturns } from './host-returns.ts'
import { JobProgress } from './job-progress.ts'
import { hostPorts } from './launch/host-ports.ts'
import type {
  HostDisk,
  HostPorts,
  ImageDisks,
  ImageParts,
  InstancePorts,
  InstanceSettings,
  InstanceVolumes,
  Limits,
  Machines,
  NamedHost,
  Pool,
  SnapshotImages,
} from './ports.ts'
import { watchPower } from './power/settle.ts'
import { recoverInstances } from './recover.ts'

export interface InstanceServiceOptions {
  readonly catalog: Catalog
  /** All machines, each on its host. It is closed with the instances. */
  readonly hypervisor: Machines
  /** The service's own first. */
  readonly hosts: readonly [NamedHost, ...NamedHost[]]
  readonly images: ImageDisks & ImageParts
  readonly snapshots: SnapshotImages
  readonly volumes: InstanceVolumes
  readonly limits: Limits
  readonly settings?: Partial<InstanceSettings>
  /** What runs at once, and how much of it one project's may be. */
  readonly pools?: Readonly<Record<Pool, PlaceLimits>>
  readonly hostPorts?: HostPorts
  /** How often hosts that were missed are looked for. */
  readonly lookForHostsMs?: number
  readonly disk: HostDisk
  readonly onProblem: (error: unknown) => void
  readonly now?: () => number
}

export interface InstanceService {
  readonly ports: InstancePorts
  /** What is done every second: hosts that are back are asked for their machines, and what waits for them goes on in the background. */
  lookForHosts(): Promise<void>
  /** Work in the background ends, to go on at the next start; machines run on. Requests must have ended before. */
  close(): Promise<void>
}

export const defaultInstanceSettings: InstanceSettings = {
  defaultLimits: { instances: 10, cores: 20, ram: 51_200 }, // Nova's
  forwardAddress: '127.0.0.1',
  forwardPorts: { first: 1024, last: 32_767 }, // above what needs privileges, below what Linux gives to clients
  isolateGuests: false,
  bridge: null,
  stopGraceMs: 60_000, // Nova's shutdown_timeout
  freezeMs: 5000, // a guest whose writes stand still for longer is one that people miss
}
const pools: Readonly<Record<Pool, PlaceLimits>> = {
  // each reads and writes files and starts a process; ten make a batch appear at once, and are over so soon that one project may have as many
  launches: { places: 12, share: 10 },
  // each reads and writes a disk or a memory as fast as it can
  jobs: { places: 8, share: 4 },
}

const LOOK_FOR_HOSTS_MS = 1000

/** The instances of a service, everything that a stop or a kill left half done taken up. It closes the hypervisor. */
export async function openInstances(options: InstanceServiceOptions): Promise<InstanceService> {
  const { catalog, hypervisor, hosts, images, snapshots, volumes, limits, onProblem } = options
  const tasks = new TaskLines({ pools: options.pools ?? pools, onProblem })
  const now = options.now ?? Date.now
  const consoles = new SerialConsoles({ catalog, hypervisor, now })
  const ports: InstancePorts = {
    catalog,
    hypervisor,
    hosts,
    missedHosts: new Set(),
    images,
    snapshots,
    volumes,
    limits,
    hostPorts: options.hostPorts ?? hostPorts,
    disk: options.disk,
    tasks,
    progress: new JobProgress(),
    consoles,
    settings: { ...defaultInstanceSettings, ...options.settings },
    onProblem,
    now,
  }
  await loadStandardFlavors(ports)
  const unwatch = watchPower(ports)
  await recoverInstances(ports)
  const returns = new HostReturns(ports)
  await returns.look()
  const looking = setInterval(() => void returns.look().catch(onProblem), options.lookForHostsMs ?? LOOK_FOR_HOSTS_MS).unref()
  return {
    ports,
    lookForHosts: () => returns.look(),
    async close() {
      clearInterval(looking)
      unwatch()
      consoles.close()
      const ended = tasks.stop()
      await hypervisor.close() // ends what waits for a guest
      await ended
      await returns.end()
    },
  }
}
