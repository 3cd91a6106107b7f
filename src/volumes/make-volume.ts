import type { Caller } from '../base/caller.ts'
import { failpoint } from '../base/failpoint.ts'
import { GiB } from '../base/units.ts'
import { changeVolume } from './change-volume.ts'
import { faultOf, isForOwner } from './faults.ts'
import type { ContentsSource, VolumePorts } from './ports.ts'
import type { VolumeRecord } from './records.ts'
import { sealFor } from './seal.ts'
import { volumes } from './store.ts'

/**
 * `creating` → `available`, behind the request. Cut short it is left as it stands: the next start takes it up (recover.ts).
 * @param caller who may make volumes from the image
 */
export function startMaking(ports: VolumePorts, caller: Caller, { id, source }: Pick<VolumeRecord, 'id' | 'source'>): void {
  ports.tasks.start(lineOf(id, source), async (signal) => {
    try {
      await make(ports, caller, id, signal)
    } catch (error) {
      if (signal.aborted) return
      if (!isForOwner(error)) ports.onProblem(error)
      await changeVolume(ports, id, ({ status }) =>
        status === 'creating' ? { status: 'error', fault: faultOf(error, 'it could not be made on this host') } : null,
      )
      return
    }
    failpoint('volume:made')
    const volume = await changeVolume(ports, id, ({ status }) => (status === 'creating' ? { status: 'available' } : null))
    if (!volume) await ports.contents.release(id) // an administrator deleted it meanwhile
  })
}

/** Where its making waits for its turn: what it is made from is not deleted before that. */
export function lineOf(id: string, source: VolumeRecord['source']): string {
  if (source.kind === 'volume') return source.volumeId
  return source.kind === 'snapshot' ? source.snapshotId : id
}

async function make(ports: VolumePorts, caller: Caller, id: string, signal: AbortSignal): Promise<void> {
  const volume = await volumes.get(ports.catalog.documents, id)
  if (volume?.status !== 'creating') return
  const { source, sizeGiB, projectId } = volume
  const bytes = sizeGiB * GiB
  if (source.kind !== 'volume') return ports.contents.make(caller, id, bytes, contentsFrom(source))
  if (source.layer === null) return // it was never sealed: the next start does that
  await ports.contents.settle(source.volumeId, source.layer, projectId, { id, kind: 'volume', bytes }, signal)
}

function contentsFrom(source: Exclude<VolumeRecord['source'], { kind: 'volume' }>): ContentsSource {
  return source.kind === 'snapshot' ? { kind: 'kept', id: source.snapshotId } : source
}

/**
 * The moment of which a volume is a copy; then it is made. A copy reads the layers of its source, one after the other with all that does.
 * @throws ServiceError as `VolumeContents.seal`
 */
export async function sealCopied(ports: VolumePorts, caller: Caller, { id }: VolumeRecord, volumeId: string): Promise<void> {
  await sealFor(ports, volumeId, async (layer) => {
    const source = { kind: 'volume', volumeId, layer } as const
    await changeVolume(ports, id, () => ({ source }))
    startMaking(ports, caller, { id, source })
  })
}
