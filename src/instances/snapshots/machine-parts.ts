import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { Sealed } from '../hypervisor/disk-layers.ts'
import type { MemoryState, SaveOptions } from '../hypervisor/machine-memory.ts'
import type { ImagePart, InstancePorts } from '../ports.ts'
import type { InstanceRecord, VolumeSnapshot } from '../records.ts'
import { seeds } from '../store.ts'
import { describeMachine, type MachineDescription, machineFrom } from './machine-description.ts'

const MACHINE = 'machine'
const MEMORY = 'memory'
const MAX_MACHINE_CHARACTERS = 2 ** 21

/** The instance, and what of its volumes is in the image. */
interface Described {
  readonly instance: InstanceRecord
  readonly imageId: string
  readonly volumes: readonly VolumeSnapshot[]
}

/** Memory goes into the image while the guest runs; disks and memory are of the same moment. */
export async function sealWithMemory(
  ports: InstancePorts,
  of: Described,
  { signal, ...options }: SaveOptions & { readonly signal: AbortSignal },
): Promise<Sealed> {
  const { instance, imageId } = of
  const store = (body: AsyncIterable<Uint8Array>) =>
    ports.snapshots.addPart(imageId, { kind: 'memory', name: MEMORY, body }, { signal })
  const saved = await ports.hypervisor.saveMemory(instance.id, store, { ...options, signal })
  const { shape, seedDisc, layers, consistency, evidence } = saved
  await addMachine(ports, of, { shape, seedDisc: seedDisc && Buffer.from(seedDisc).toString('base64') })
  return { layers, consistency, evidence: `${evidence}; memory of the same moment is in the image` }
}

export async function addMachine(
  { catalog, snapshots }: InstancePorts,
  { instance, imageId, volumes }: Described,
  memory: MachineDescription['memory'],
): Promise<void> {
  const { userData } = await seeds.get(catalog.documents, instance.id)
  const text = JSON.stringify(describeMachine(instance, volumes, userData, memory))
  await snapshots.addPart(imageId, { kind: 'machine', name: MACHINE, text })
}

/** What an image holds beside its disk, by whatever it is to be had. */
interface Parts {
  readonly imageId: string
  list(): Promise<readonly ImagePart[]>
  read(name: string): AsyncIterable<Uint8Array>
}

const partsIn = ({ images }: InstancePorts, caller: Caller, imageId: string): Parts => ({
  imageId,
  list: () => images.parts(caller, imageId),
  read: (name) => images.readPart(caller, imageId, name),
})

/** Of an image that is lent with its parts: it may be deleted meanwhile. */
const lentParts = ({ images }: InstancePorts, imageId: string, leaseId: string): Parts => ({
  imageId,
  list: () => images.lentParts(leaseId),
  read: (name) => images.readLentPart(leaseId, name),
})

/**
 * What the image says of the machine that it is of; undefined where it says nothing.
 * @throws ServiceError `not-found`, `denied`; `unsupported`, `corrupt`
 */
export async function machineIfIn(
  ports: InstancePorts,
  caller: Caller,
  imageId: string,
): Promise<MachineDescription | undefined> {
  return machineOf(partsIn(ports, caller, imageId))
}

/** As `machineIfIn`. @throws ServiceError also `invalid-request` where it says nothing */
export async function machineIn(ports: InstancePorts, caller: Caller, imageId: string): Promise<MachineDescription> {
  return theMachine(partsIn(ports, caller, imageId))
}

/** @throws ServiceError `invalid-request` where the image has no memory to go on from */
export async function assertMemoryIn(ports: InstancePorts, caller: Caller, imageId: string): Promise<void> {
  await theMemory(partsIn(ports, caller, imageId))
}

/**
 * The memory in an image that is lent, for a machine to go on from: made by the service itself, as all parts are, and so to be trusted.
 * @throws ServiceError `invalid-request` where there is none
 */
export async function lentMemory(ports: InstancePorts, imageId: string, leaseId: string): Promise<MemoryState> {
  const parts = lentParts(ports, imageId, leaseId)
  const { shape, seedDisc } = await theMemory(parts)
  return { shape, seedDisc: seedDisc === null ? null : Buffer.from(seedDisc, 'base64'), open: () => parts.read(MEMORY) }
}

async function theMemory(parts: Parts): Promise<NonNullable<MachineDescription['memory']>> {
  const { memory } = await theMachine(parts)
  if (memory) return memory
  throw new ServiceError(
    'invalid-request',
    `image ${parts.imageId} has no memory to go on from: leave memory out, and the guest starts anew`,
  )
}

async function theMachine(parts: Parts): Promise<MachineDescription> {
  const machine = await machineOf(parts)
  if (machine) return machine
  throw new ServiceError(
    'invalid-request',
    `image ${parts.imageId} is of a disk alone: make a snapshot with the machine or its memory first`,
  )
}

async function machineOf(parts: Parts): Promise<MachineDescription | undefined> {
  if (!(await parts.list()).some(({ name, kind }) => name === MACHINE && kind === 'machine')) return undefined
  let text = ''
  const decoder = new TextDecoder()
  for await (const bytes of parts.read(MACHINE)) {
    text += decoder.decode(bytes, { stream: true })
    if (text.length > MAX_MACHINE_CHARACTERS)
      throw new ServiceError('corrupt', `the machine in image ${parts.imageId} is told at too great a length`)
  }
  return machineFrom(text)
}
