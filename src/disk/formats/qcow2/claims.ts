import { ServiceError } from '../../../base/errors.ts'
import { UsedUnits } from '../../block/used-units.ts'
import { type Qcow2Header, refuse } from './header.ts'

/** One bit for each cluster of the file: 256 MiB at most, of which memory is used where the file has clusters. */
const MAX_CLAIMABLE_CLUSTERS = 2 ** 31
/** With snapshots 4 bytes for each: again 256 MiB, and 4 TiB of file with clusters of 64 KiB. */
const MAX_SHAREABLE_CLUSTERS = 2 ** 26

/** What a cluster holds. L2 tables and data may be shared between the disks of different moments, at one place of theirs. */
export type Use =
  | { readonly kind: 'only'; readonly what: string }
  /** @param place its index in the L1 table */
  | { readonly kind: 'table'; readonly place: number }
  /** @param place the number of the cluster on the disk */
  | { readonly kind: 'data'; readonly place: number; readonly diskOffset: number }

/** Which clusters of the file are in use. A cluster used twice is a trick to make little file into much disk, or damage. */
export class Claims {
  readonly #clusterBytes: number
  readonly #clusters: number
  /** Of a file without snapshots, where nothing may be shared. */
  readonly #used: UsedUnits
  /** Of one with snapshots: 0, or what uses the cluster. */
  readonly #uses: Uint32Array

  constructor(fileBytes: number, { clusterBytes, snapshots }: Qcow2Header) {
    const clusters = Math.ceil(fileBytes / clusterBytes)
    const most = snapshots > 0 ? MAX_SHAREABLE_CLUSTERS : MAX_CLAIMABLE_CLUSTERS
    if (clusters > most) {
      throw new ServiceError('too-large', `qcow2: the file has ${clusters} clusters; at most ${most} can be checked`, {
        clusters,
      })
    }
    this.#clusterBytes = clusterBytes
    this.#clusters = clusters
    this.#used = new UsedUnits(snapshots > 0 ? 0 : clusters)
    this.#uses = new Uint32Array(snapshots > 0 ? clusters : 0)
  }

  /**
   * @param offset at a cluster's start. What lies beyond the end of the file is not claimed.
   * @returns false where all of it was known to have this use
   * @throws ServiceError `invalid-image` where one of the clusters has another use
   */
  take(offset: number, length: number, use: Use): boolean {
    const first = offset / this.#clusterBytes
    const last = Math.min(first + Math.ceil(length / this.#clusterBytes), this.#clusters)
    let isNew = false
    for (let cluster = first; cluster < last; cluster += 1) {
      const taken = this.#uses.length > 0 ? this.#share(cluster, use) : this.#used.take(cluster, 1) < 0 || undefined
      if (taken === undefined) {
        throw refuse('overlap', `${nameOf(use)} uses a cluster of the file that is in use already; try "qemu-img check -r all"`, {
          hostOffset: cluster * this.#clusterBytes,
        })
      }
      isNew ||= taken
    }
    return isNew
  }

  #share(cluster: number, use: Use): boolean | undefined {
    const mark = markOf(use)
    const known = this.#uses[cluster]
    this.#uses[cluster] = mark
    if (known === 0) return true
    return known === mark && use.kind !== 'only' ? false : undefined
  }
}

/** A use in 32 bits, other than 0. Data 2^31 clusters apart, 128 TiB where they have 64 KiB, pass for one: no way to much disk. */
function markOf(use: Use): number {
  if (use.kind === 'only') return 1
  return use.kind === 'table' ? 2 + use.place : 2 ** 31 + (use.place % 2 ** 31)
}

const nameOf = (use: Use): string =>
  use.kind === 'only' ? use.what : use.kind === 'table' ? 'an L2 table' : `the data for byte ${use.diskOffset} of the disk`
