import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { Sealed } from '../hypervisor/disk-layers.ts'
import type { MemoryState, SaveOptions } from '../hypervisor/machine-memory.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { seeds } from '../store.ts'
import { describeMachine, type MachineDescription, machineFrom } from './machine-description.ts'

const MACHINE = 'machine'
const MEMORY = 'memory'
const MAX_MACHINE_CHARACTERS = 2 ** 21

/** Memory goes into the image while the guest runs; disks and memory are of the same moment. */
export async function sealWithMemory(
  ports: InstancePorts,
  instance: InstanceRecord,
  imageId: string,
  { signal, ...options }: SaveOptions & { readonly signal: AbortSignal },
): Promise<Sealed> {
  const store = (body: AsyncIterable<Uint8Array>) =>
    ports.snapshots.addPart(imageId, { kind: 'memory', name: MEMORY, body }, { signal })
  const { shape, seedDisc, layers, consistency, evidence } = await ports.hypervisor.saveMemory(instance.id, store, {
    ...options,
    signal,
  })
  await addMachine(ports, instance, imageId, { shape, seedDisc: seedDisc && Buffer.from(seedDisc).toString('base64') })
  return { layers, consistency, evidence: `${evidence}; memory of the same moment is in the image` }
}

export async function addMachine(
  { catalog, snapshots }: InstancePorts,
  instance: InstanceRecord,
  imageId: string,
  memory: MachineDescription['memory'],
): Promise<void> {
  const { userData } = await seeds.get(catalog.documents, instance.id)
  const text = JSON.stringify(describeMachine(instance, userData, memory))
  await snapshots.addPart(imageId, { kind: 'machine', name: MACHINE, text })
}

/**
 * What the image says of the machine that it is of.
 * @throws ServiceError `invalid-request` where it says nothing; `not-found`, `denied`; `unsupported`
 */
export async function machineIn({ images }: InstancePorts, caller: Caller, imageId: string): Promise<MachineDescription> {
  const there = (await images.parts(caller, imageId)).some(({ name, kind }) => name === MACHINE && kind === 'machine')
  if (!there) {
    throw new ServiceError(
      'invalid-request',
      `image ${imageId} is of a disk alone: make a snapshot with the machine or its memory first`,
    )
  }
  let text = ''
  const decoder = new TextDecoder()
  for await (const bytes of images.readPart(caller, imageId, MACHINE)) {
    text += decoder.decode(bytes, { stream: true })
    if (text.length > MAX_MACHINE_CHARACTERS)
      throw new ServiceError('corrupt', `the machine in image ${imageId} is told at too great a length`)
  }
  return machineFrom(text)
}

/**
 * The memory in an image, for a machine to go on from: made by the service itself, as all parts are, and so to be trusted.
 * @throws ServiceError `invalid-request` where there is none
 */
export async function memoryIn(ports: InstancePorts, caller: Caller, imageId: string): Promise<MemoryState> {
  const { memory } = await machineIn(ports, caller, imageId)
  if (!memory)
    throw new ServiceError(
      'invalid-request',
      `image ${imageId} has no memory to go on from: leave memory out, and the guest starts anew`,
    )
  const seedDisc = memory.seedDisc === null ? null : Buffer.from(memory.seedDisc, 'base64')
  return { shape: memory.shape, seedDisc, open: () => ports.images.readPart(caller, imageId, MEMORY) }
}
