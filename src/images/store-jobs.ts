import { ServiceError } from '../base/errors.ts'
import type { BackupTarget } from '../store/blobs/backup-target.ts'
import type { BlobStore } from '../store/blobs/blob-store.ts'
import { type MirrorReport, mirrorBlobs } from '../store/blobs/mirror-blobs.ts'
import type { CollectReport, JobOptions, Live, StoreFault } from '../store/chunks/chunk-store.ts'
import { allLeases } from './leases/lease.ts'
import { allParts } from './parts/image-parts.ts'
import type { ImagePorts } from './ports.ts'
import { recordedManifests } from './recorded-manifests.ts'

export type StoreJobName = 'collect' | 'check' | 'rebuild' | 'backup'

/** A fault, and the images that it touches; deleted ones that are lent too. */
export interface ImageFault extends StoreFault {
  readonly images: readonly { readonly id: string; readonly name: string | null }[]
}
export interface CheckReport {
  readonly faults: number
}

/** What a backup is made from, and how its target is reached. */
export interface Backups {
  readonly blobs: BlobStore
  /** @throws ServiceError `invalid-request` for a folder that is none, or not a backup's */
  readonly open: (folder: string) => Promise<BackupTarget>
}

type Ports = Pick<ImagePorts, 'catalog' | 'chunks' | 'readers'>

/** The catalog's journal: every record, which is copied before the packs that records name. */
const RECORDS = 'journal/'

/** What an administrator (or the clock) does to the whole store. One at a time: they read all of it, and would only slow each other. */
export class StoreJobs {
  readonly #ports: Ports
  readonly #backups: Backups
  readonly #endExpired: () => Promise<unknown>
  #running: StoreJobName | null = null

  /** @param endExpired ends leases that are over, so that what they held goes with the collection that comes next */
  constructor(ports: Ports, backups: Backups, endExpired: () => Promise<unknown> = async () => undefined) {
    this.#ports = ports
    this.#backups = backups
    this.#endExpired = endExpired
  }

  get running(): StoreJobName | null {
    return this.#running
  }

  /** Removes what no image uses. @throws ServiceError `conflict` while another job runs; `cancelled` */
  collect(options: JobOptions = {}): Promise<CollectReport> {
    return this.#alone('collect', async () => {
      await this.#endExpired()
      return this.#ports.chunks.collect(() => this.#liveForGood(), options)
    })
  }

  /** Makes the index again from the packs. @throws ServiceError `conflict` while another job runs; `cancelled` */
  rebuild(options: JobOptions = {}): Promise<{ readonly packs: number; readonly chunks: number }> {
    return this.#alone('rebuild', () => this.#ports.chunks.rebuild(() => this.#live(), options))
  }

  /**
   * Looks for damage.
   * @param onFault told of each fault as it is found
   * @throws ServiceError `conflict` while another job runs; `cancelled`
   */
  check(options: JobOptions & { readonly readData?: boolean }, onFault: (fault: ImageFault) => void): Promise<CheckReport> {
    return this.#alone('check', async () => {
      let faults = 0
      for await (const fault of this.#ports.chunks.check(() => this.#live(), options)) {
        faults += 1
        onFault({ ...fault, images: await this.#imagesOf(fault.manifests) })
      }
      return { faults }
    })
  }

  /**
   * Copies every blob that the backup in `folder` lacks: images, records and users as they are acknowledged by now. Uploads go
   * on meanwhile; the collector does not, so nothing is taken away while it is copied. A backup that was cut short goes on
   * where it stood.
   * @param folder on the machine of the service
   * @throws ServiceError `invalid-request` for a folder that will not do; `conflict` while another job runs, or for the backup of
   *   another store; `no-space`; `cancelled`
   */
  backup(folder: string, { signal, onProgress }: JobOptions = {}): Promise<MirrorReport> {
    return this.#alone('backup', async () => {
      const target = await this.#backups.open(folder)
      try {
        const { packs } = await this.#ports.chunks.stats()
        const report = await mirrorBlobs(this.#backups.blobs, target.blobs, RECORDS, {
          ...(signal ? { signal } : {}),
          onProgress: (copied) => onProgress?.({ phase: 'copying', done: copied, total: Math.max(copied, packs) }),
        })
        await target.complete()
        return report
      } finally {
        await target.close()
      }
    })
  }

  /** What records name, and apart from it what is being read, as its record may be gone. */
  async *#live(): AsyncIterable<Live> {
    yield* recordedManifests(this.#ports.catalog)
    for (const manifest of this.#ports.readers.held()) yield { manifest, isRead: true }
  }

  /** Ends only when all that it did not name any more is gone durably: a power cut must not bring back a record whose bytes went. */
  async *#liveForGood(): AsyncIterable<Live> {
    yield* this.#live()
    await this.#ports.catalog.write(async () => undefined)
  }

  async #imagesOf(manifests: readonly string[]): Promise<ImageFault['images']> {
    if (manifests.length === 0) return []
    const wanted = new Set(manifests)
    const found = new Map<string, ImageFault['images'][number]>()
    for await (const { body } of allLeases(this.#ports.catalog)) {
      const { image } = body
      if (image && wanted.has(image.manifest)) found.set(image.id, { id: image.id, name: image.name }) // it may be deleted
    }
    const { catalog } = this.#ports
    for (const named of [catalog.images.manifests(), allParts(catalog)]) {
      for await (const { imageId, manifest } of named) {
        const image = wanted.has(manifest) ? await catalog.images.get(imageId) : undefined
        if (image) found.set(imageId, { id: image.id, name: image.name })
      }
    }
    return [...found.values()]
  }

  async #alone<T>(name: StoreJobName, work: () => Promise<T>): Promise<T> {
    if (this.#running) {
      throw new ServiceError('conflict', `the store is busy with "${this.#running}"; wait until it has ended, or cancel it`, {
        running: this.#running,
      })
    }
    this.#running = name
    try {
      return await work()
    } finally {
      this.#running = null
    }
  }
}
