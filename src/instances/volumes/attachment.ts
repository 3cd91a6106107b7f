/** A volume that an instance has, is getting or is giving back: a document of its own, so that neither record is in the other's way. */
export interface AttachmentRecord {
  readonly instanceId: string
  /** Of the volume; the name of the machine's disk, too. */
  readonly volumeId: string
  /** `/dev/vdb`: where it is by its place among the disks. The guest may see it elsewhere. */
  readonly device: string
  /** 0: the instance starts from it. */
  readonly bootIndex: number | null
  readonly deleteOnTermination: boolean
  readonly tag: string | null
  /** Made for the instance, when that starts; null: it was there. */
  readonly made: MadeVolume | null
  readonly state: 'attaching' | 'attached' | 'detaching'
  readonly createdAt: number
}

export interface MadeVolume {
  readonly sizeGiB: number | null
  readonly from:
    | { readonly kind: 'blank' }
    /** `part`: of what the image holds beside its disk; absent: its disk. */
    | { readonly kind: 'image'; readonly imageId: string; readonly part?: string }
    | { readonly kind: 'snapshot'; readonly snapshotId: string }
}

export const ROOT_INDEX = 0

/** What starts first stands first, then what came first. */
export const inOrder = (attachments: readonly AttachmentRecord[]): readonly AttachmentRecord[] =>
  [...attachments].sort(
    (a, b) => (a.bootIndex ?? Number.MAX_SAFE_INTEGER) - (b.bootIndex ?? Number.MAX_SAFE_INTEGER) || a.createdAt - b.createdAt,
  )

/** The first that nobody has: `/dev/vdb`, or `/dev/sdb` on buses that name them so. @param hasOwnRoot whether `a` is taken */
export function nextDevice(taken: readonly Pick<AttachmentRecord, 'device'>[], diskBus: string, hasOwnRoot: boolean): string {
  const prefix = diskBus === 'virtio' ? '/dev/vd' : '/dev/sd'
  const used = new Set(taken.map(({ device }) => device))
  if (hasOwnRoot) used.add(`${prefix}a`)
  const letters = 'abcdefghijklmnopqrstuvwxyz'
  const free = [...letters].find((letter) => !used.has(prefix + letter)) ?? 'z'
  return prefix + free
}
