import { randomBytes } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { failpoint } from '../base/failpoint.ts'
import { GiB } from '../base/units.ts'
import { authorizeCreate, flavorOfInstance } from './create-instances.ts'
import { findFlavor, listFlavors } from './flavors/flavors.ts'
import { hostsFit } from './hosts.ts'
import { assertFits } from './launch/fit.ts'
import { withFreshPorts } from './launch/forwards.ts'
import { startLaunch } from './launch/launch.ts'
import { type Common, recordInstances } from './launch/record-instances.ts'
import { asRequested } from './launch/requested.ts'
import type { InstancePorts } from './ports.ts'
import { type InstanceRecord, startsFromVolume } from './records.ts'
import type { DescribedVolume } from './snapshots/machine-description.ts'
import { assertMemoryIn, machineIn } from './snapshots/machine-parts.ts'
import type { WantedDisk } from './volumes/new-disks.ts'

export interface MachineWish {
  readonly name: string
  /** A snapshot that tells what its machine was. */
  readonly imageId: string
  /** Absent: the one that the machine had. */
  readonly flavorId?: string | undefined
  /** Whether it goes on where that machine was, rather than starts. */
  readonly withMemory: boolean
}

/** Of an instance that is there as a record only. */
const beginning = {
  vmState: 'building',
  taskState: 'scheduling',
  power: null,
  lock: null,
  fault: null,
  leaseId: null,
  move: null,
  launchedAt: null,
  accessIPv4: '',
  accessIPv6: '',
} as const

/** It gets one of its own, with what is in the image. */
const volumeFrom = (imageId: string, { part, bytes, ...how }: DescribedVolume): WantedDisk => ({
  ...how,
  from: { kind: 'image', imageId, ...(part === null ? {} : { part }) },
  sizeGiB: bytes / GiB,
})

/**
 * The same machine again from its image: flavor, hardware, key, metadata, what it was told by its user; with an id and ports of its own.
 * Whoever may start from the image may do so; the flavor must be one of theirs.
 * @returns the instance, which is `building`
 * @throws ServiceError `denied`; `invalid-request` for an image without a machine, or what does not fit; `over-quota`, `unavailable`
 */
export async function createFromMachine(ports: InstancePorts, caller: Caller, wish: MachineWish): Promise<InstanceRecord> {
  const projectId = authorizeCreate(caller)
  void ports.hypervisor.abilities // throws where no host runs machines
  const image = await asRequested(() => ports.images.show(caller, wish.imageId))
  const machine = await machineIn(ports, caller, image.id)
  if (wish.withMemory) await assertMemoryIn(ports, caller, image.id) // refused now rather than later
  const flavor = await asRequested(() => findFlavor(ports.catalog.documents, caller, wish.flavorId ?? machine.flavor.id))
  const isOnVolume = startsFromVolume(machine)
  const others = await listFlavors(ports, caller, {})
  const disk = isOnVolume ? { ...image, diskBytes: 0, minDisk: 0 } : image
  const { hosts } = hostsFit(ports, ports.hosts, (abilities) => assertFits(disk, flavor, abilities, others))
  const { format: _, mac, memory: __, userData, metadata, volumes, ...kept } = machine
  const common: Common = {
    ...kept,
    projectId,
    userId: caller.userId,
    reservationId: `r-${randomBytes(4).toString('hex')}`,
    imageId: isOnVolume ? '' : image.id,
    imageProperties: image.properties,
    flavor: flavorOfInstance(flavor),
    ...beginning,
  }
  const [made] = await recordInstances(ports, caller, common, {
    name: wish.name,
    metadata: withFreshPorts(metadata),
    hosts,
    network: mac === null ? 'none' : 'auto',
    // networks of instances do not meet, so two may have the same card; where they are in a bridge, that is refused
    ...(wish.withMemory && mac !== null ? { mac } : {}),
    userData,
    passwordHash: null,
    resumesFrom: wish.withMemory ? { imageId: image.id, leaseId: null } : null,
    volumes: volumes.map((volume) => volumeFrom(image.id, volume)),
    least: 1,
    most: 1,
  })
  if (!made) throw new Error('a machine is one instance')
  failpoint('instance:recorded')
  startLaunch(ports, caller, made)
  return made
}
