import { type BootSector, refuse } from './boot-sector.ts'
import type { NonResidentAttribute } from './record.ts'

/** Clusters of an attribute, one after the other. */
export interface Run {
  readonly vcn: number
  readonly count: number
  /** Cluster of the volume; null: zeros. */
  readonly lcn: number | null
}

/** Source: the Linux-NTFS project, "NTFS Documentation", Data Runs. @throws ServiceError `invalid-image` at the first that breaks the format */
export function runsOf({ mapping, firstVcn, endVcn }: NonResidentAttribute, { clusters }: BootSector): Run[] {
  const runs: Run[] = []
  let vcn = firstVcn
  let lcn = 0
  for (let at = 0; at < mapping.length && mapping[at] !== 0 && vcn < endVcn; ) {
    const countBytes = mapping[at]! & 0xf
    const moveBytes = mapping[at]! >>> 4
    const bad = (problem: string) => refuse('malformed', `a run for cluster ${vcn} of an attribute: ${problem}`)
    if (countBytes === 0 || countBytes > 8 || moveBytes > 8 || at + 1 + countBytes + moveBytes > mapping.length)
      throw bad(`its first byte is 0x${mapping[at]!.toString(16)}`)
    const count = signed(mapping, at + 1, countBytes)
    if (count <= 0 || vcn + count > endVcn) throw bad(`it has ${count} clusters, and ${endVcn - vcn} are left`)
    lcn += moveBytes === 0 ? 0 : signed(mapping, at + 1 + countBytes, moveBytes)
    if (moveBytes > 0 && (lcn < 0 || lcn + count > clusters)) throw bad(`clusters ${lcn} to ${lcn + count}, of ${clusters}`)
    runs.push({ vcn, count, lcn: moveBytes === 0 ? null : lcn })
    vcn += count
    at += 1 + countBytes + moveBytes
  }
  return runs
}

function signed(bytes: Uint8Array, at: number, count: number): number {
  let value = (bytes[at + count - 1]! << 24) >> 24
  for (let index = count - 2; index >= 0; index -= 1) value = value * 256 + bytes[at + index]!
  return value
}

/** The run that has a cluster, or undefined. They ascend without gaps. */
export function runAt(runs: readonly Run[], vcn: number): Run | undefined {
  let [low, high] = [0, runs.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (runs[middle]!.vcn <= vcn) low = middle + 1
    else high = middle
  }
  const found = runs[low - 1]
  return found && vcn < found.vcn + found.count ? found : undefined
}
