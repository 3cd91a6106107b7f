import { hostname } from 'node:os'
import { TaskLines } from '../base/task-lines.ts'
import { GiB } from '../base/units.ts'
import type { Catalog } from '../store/catalog/catalog.ts'
import type { HostDisk, Limits, VolumeContents, VolumeImages, VolumePorts, VolumeSettings } from './ports.ts'
import { recoverVolumes } from './recover.ts'
import { Turns } from './turns.ts'

export interface VolumeServiceOptions {
  readonly catalog: Catalog
  readonly contents: VolumeContents
  readonly images: VolumeImages
  readonly limits: Limits
  readonly disk: HostDisk
  readonly settings?: Partial<VolumeSettings>
  readonly onProblem: (error: unknown) => void
  readonly now?: () => number
}

export interface VolumeService {
  readonly ports: VolumePorts
  /** Work in the background ends, to go on at the next start. Requests must have ended before. */
  close(): Promise<void>
}

export const defaultVolumeSettings: Omit<VolumeSettings, 'hostName'> = {
  defaultLimits: { volumes: 10, snapshots: 10, gigabytes: 1000, per_volume_gigabytes: -1 }, // Cinder's
  reservedBytes: GiB,
  promiseRatio: 1,
}

/** The volumes of a service, everything that a stop or a kill left half done taken up. */
export async function openVolumes(options: VolumeServiceOptions): Promise<VolumeService> {
  const { catalog, contents, images, limits, disk, onProblem } = options
  const tasks = new TaskLines({ pools: {}, onProblem }) // the store bounds what is heavy of it
  const ports: VolumePorts = {
    ...{ catalog, contents, images, limits, disk, tasks, onProblem },
    seals: new Turns(),
    settings: { hostName: hostname(), ...defaultVolumeSettings, ...options.settings },
    now: options.now ?? Date.now,
  }
  await recoverVolumes(ports)
  return { ports, close: () => tasks.stop() }
}
