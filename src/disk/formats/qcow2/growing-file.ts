import { CLUSTER_BYTES, REFCOUNTS_PER_BLOCK, refcountClusters } from './written-header.ts'

/** Clusters that wait behind one that is being filled. More of them leave it as it is: so much memory, and a hole of 64 KiB at most for 2 MiB. */
const MAX_WAITING = 32
const HIGH = 2 ** 32

/** What a file that is over needs to say in its first cluster, in clusters. */
export interface FileEnd {
  readonly l1Start: number
  readonly refcountTableStart: number
  readonly refcountTableClusters: number
}

/**
 * A file that is made from front to back: gives out places in it, counts how often each cluster is used, and hands over clusters that
 * will not change any more. Compressed bytes share clusters; what has whole clusters waits behind one that is not full. Holds up to 2 MiB
 * of such clusters, 64 KiB of refcounts for each 2 GiB that is not handed over yet, and 8 bytes for each of those blocks.
 */
export class GrowingFile {
  #next: number
  /** Given out and not yet handed over; where one is open, it is the last that is not full. */
  #waiting: Uint8Array[] = []
  #open: { readonly cluster: number; used: number } | undefined
  /** Refcount blocks that are not in the file yet, from the first cluster that they count; those that are, by their clusters. */
  readonly #counts = new Map<number, Uint8Array>()
  readonly #blocks: number[] = []

  /** @param first cluster that is given out; those before it are used once */
  constructor(first: number) {
    this.#next = first
    for (let cluster = 0; cluster < first; cluster += 1) this.#count(cluster)
  }

  /** A whole cluster. @returns where it is in the file, in bytes */
  place(cluster: Uint8Array): number {
    const at = this.#give(cluster)
    this.#count(at)
    return at * CLUSTER_BYTES
  }

  /** Less than a cluster of bytes, which may go on in the next one. @returns where they begin in the file */
  append(bytes: Uint8Array): number {
    const room = this.#open ? CLUSTER_BYTES - this.#open.used : 0
    const isLast = this.#open?.cluster === this.#next - 1
    if (!this.#open || (bytes.length > room && (!isLast || room === 0))) this.#open = this.#opened()
    const { cluster, used } = this.#open
    const head = bytes.subarray(0, CLUSTER_BYTES - used)
    this.#fill(this.#open, head)
    if (head.length < bytes.length) {
      this.#open = this.#opened()
      this.#fill(this.#open, bytes.subarray(head.length))
    }
    return cluster * CLUSTER_BYTES + used
  }

  /** The clusters that will not change, in order. */
  ready(): readonly Uint8Array[] {
    if (this.#open && this.#next - this.#open.cluster > MAX_WAITING) this.#open = undefined
    this.#placeFullBlocks()
    const kept = this.#open ? this.#next - this.#open.cluster : 0
    return this.#waiting.splice(0, this.#waiting.length - kept)
  }

  /** Adds the L1 table and all that counts clusters. What it says is ready then is the rest of the file. */
  finish(l1: readonly Uint8Array[]): FileEnd {
    this.#open = undefined
    const l1Start = this.#next
    for (const cluster of l1) this.place(cluster)
    this.#placeFullBlocks()
    const placed = this.#blocks.length
    const { blocks, tableClusters } = refcountClusters(this.#next, placed)
    for (let cluster = this.#next; cluster < this.#next + blocks - placed + tableClusters; cluster += 1) this.#count(cluster)
    for (let block = placed; block < blocks; block += 1) this.#blocks.push(this.#give(this.#takeBlock(block)))
    const table = new Uint8Array(tableClusters * CLUSTER_BYTES)
    const view = new DataView(table.buffer)
    for (const [index, cluster] of this.#blocks.entries()) writeOffset(view, index * 8, cluster * CLUSTER_BYTES, 0)
    const refcountTableStart = this.#next
    for (let at = 0; at < table.length; at += CLUSTER_BYTES) this.#give(table.subarray(at, at + CLUSTER_BYTES))
    return { l1Start, refcountTableStart, refcountTableClusters: tableClusters }
  }

  #give(cluster: Uint8Array): number {
    this.#waiting.push(cluster)
    this.#next += 1
    return this.#next - 1
  }

  #opened(): { readonly cluster: number; used: number } {
    return { cluster: this.#give(new Uint8Array(CLUSTER_BYTES)), used: 0 }
  }

  /** The open cluster counts one more for each compressed cluster that has bytes in it. */
  #fill(open: { readonly cluster: number; used: number }, bytes: Uint8Array): void {
    const waiting = this.#waiting[this.#waiting.length - (this.#next - open.cluster)]!
    waiting.set(bytes, open.used)
    open.used += bytes.length
    this.#count(open.cluster)
  }

  #count(cluster: number): void {
    const block = Math.floor(cluster / REFCOUNTS_PER_BLOCK)
    const counts = this.#counts.get(block) ?? new Uint8Array(CLUSTER_BYTES)
    this.#counts.set(block, counts)
    const view = new DataView(counts.buffer)
    const at = (cluster - block * REFCOUNTS_PER_BLOCK) * 2
    view.setUint16(at, view.getUint16(at) + 1) // a cluster has room for a few thousand compressed ones at most
  }

  #takeBlock(block: number): Uint8Array {
    const counts = this.#counts.get(block)!
    this.#counts.delete(block)
    return counts
  }

  /** Puts refcount blocks into the file of which all clusters are settled. */
  #placeFullBlocks(): void {
    for (;;) {
      const block = this.#blocks.length
      const settled = this.#open?.cluster ?? this.#next
      if (settled < (block + 1) * REFCOUNTS_PER_BLOCK) return
      this.#blocks.push(this.place(this.#takeBlock(block)) / CLUSTER_BYTES)
    }
  }
}

/** An offset of the file with flags in its highest bits, big-endian. */
export function writeOffset(view: DataView, at: number, offset: number, flagsHigh: number): void {
  view.setUint32(at, (Math.floor(offset / HIGH) | flagsHigh) >>> 0)
  view.setUint32(at + 4, offset % HIGH)
}
