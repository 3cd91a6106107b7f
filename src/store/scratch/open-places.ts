import { readFileSync } from 'node:fs'
import { ServiceError } from '../../base/errors.ts'
import { BLOCKS_A_BYTE } from '../../disk/filters/block-map.ts'
import { COW_BLOCK_BYTES } from '../../disk/filters/cow.ts'

/** How many disks may be open at once. Each has three files to a layer, and a connection that uses it. */
export interface OpenLimits {
  readonly disks: number
  /** Of those that projects borrow: the rest is for what the service itself has open, disks of machines. */
  readonly lent: number
  /** Of those, to one project. */
  readonly ofProject: number
  /** Of memory for the maps of all. */
  readonly mapBytes: number
}

const MOST_DISKS = 1024
/** Files of the process for each disk: it has few layers, and the most of the files are for connections. */
const FILES_A_DISK = 16
const MAP_BYTES = 256 * 2 ** 20

/** @param files that the process may have open */
export function limitsFor(files = mostFiles()): OpenLimits {
  const disks = Math.max(16, Math.min(MOST_DISKS, Math.floor(files / FILES_A_DISK)))
  return { disks, lent: Math.floor(disks / 2), ofProject: Math.floor(disks / 8), mapBytes: MAP_BYTES }
}

/** proc(5), `/proc/[pid]/limits`: soft, which Node raises to hard when it starts. */
function mostFiles(): number {
  const [, soft = ''] = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
  return soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft) || 0
}

/** Who has a disk open: a project that borrowed it; null: the service itself. */
export type Opener = string | null

/** Places for open disks, so that one project cannot take all of them, nor all projects those of machines. */
export class OpenPlaces {
  readonly #limits: OpenLimits
  readonly #taken = new Map<Opener, number>()
  #mapBytes = 0

  constructor(limits: OpenLimits) {
    this.#limits = limits
  }

  /** @returns gives it back, once. @throws ServiceError `unavailable` where there is none */
  take(opener: Opener, diskBytes: number): () => void {
    const mapBytes = diskBytes / COW_BLOCK_BYTES / BLOCKS_A_BYTE
    this.#assertFree(opener, mapBytes)
    this.#add(opener, 1, mapBytes)
    return () => this.#add(opener, -1, -mapBytes)
  }

  #assertFree(opener: Opener, mapBytes: number): void {
    const { disks, lent, ofProject, mapBytes: mostMapBytes } = this.#limits
    const own = this.#taken.get(null) ?? 0
    const all = [...this.#taken.values()].reduce((sum, count) => sum + count, 0)
    if (all >= disks) refuse(`${disks} writable disks are open on this host, which is the most: end one`, disks)
    if (this.#mapBytes + mapBytes > mostMapBytes) {
      refuse(`the writable disks that are open on this host are as large as it can have: end one`, all)
    }
    if (opener === null) return
    if (all - own >= lent) refuse(`${lent} writable exports are open on this host, which is the most: end one`, lent)
    if ((this.#taken.get(opener) ?? 0) >= ofProject) {
      refuse(`your project has ${ofProject} writable exports open, which is the most: end one`, ofProject)
    }
  }

  #add(opener: Opener, count: number, mapBytes: number): void {
    const now = (this.#taken.get(opener) ?? 0) + count
    if (now > 0) this.#taken.set(opener, now)
    else this.#taken.delete(opener)
    this.#mapBytes += mapBytes
  }
}

function refuse(problem: string, open: number): never {
  throw new ServiceError('unavailable', problem, { open })
}
