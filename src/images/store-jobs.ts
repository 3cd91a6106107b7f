import { ServiceError } from '../base/errors.ts'
import type { CollectReport, JobOptions, StoreFault } from '../store/chunks/chunk-store.ts'
import type { ImagePorts } from './ports.ts'

export type StoreJobName = 'collect' | 'check' | 'rebuild'

/** A fault, and the images that it touches. */
export interface ImageFault extends StoreFault {
  readonly images: readonly { readonly id: string; readonly name: string | null }[]
}
export interface CheckReport {
  readonly faults: number
}

type Ports = Pick<ImagePorts, 'catalog' | 'chunks' | 'readers'>

/** What an administrator (or the clock) does to the whole store. One at a time: they read all of it, and would only slow each other. */
export class StoreJobs {
  readonly #ports: Ports
  #running: StoreJobName | null = null

  constructor(ports: Ports) {
    this.#ports = ports
  }

  get running(): StoreJobName | null {
    return this.#running
  }

  /** Removes what no image uses. @throws ServiceError `conflict` while another job runs; `cancelled` */
  collect(options: JobOptions = {}): Promise<CollectReport> {
    return this.#alone('collect', () => this.#ports.chunks.collect(() => this.#live(), options))
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

  /** What records name, and what is being read although its record is gone. */
  async *#live(): AsyncIterable<string> {
    for await (const { manifest } of this.#ports.catalog.images.manifests()) yield manifest
    yield* this.#ports.readers.held()
  }

  async #imagesOf(manifests: readonly string[]): Promise<ImageFault['images']> {
    if (manifests.length === 0) return []
    const wanted = new Set(manifests)
    const ids = new Set<string>()
    for await (const { imageId, manifest } of this.#ports.catalog.images.manifests()) if (wanted.has(manifest)) ids.add(imageId)
    const images = await Promise.all([...ids].map((id) => this.#ports.catalog.images.get(id)))
    return images.flatMap((image) => (image ? [{ id: image.id, name: image.name }] : []))
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
