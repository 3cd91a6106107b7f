import type { BlockSource, Extent } from '../../disk/block/block-source.ts'

export interface Allocation {
  readonly dataBytes: number
  /** Recorded as zeros. */
  readonly zeroBytes: number
  readonly holeBytes: number
  /** The disk from its begin to its end in equal parts: how much of each is data, 0 to 1. */
  readonly shares: readonly number[]
}

/** Goes through all extents of a disk once. */
export async function allocationOf(disk: BlockSource, parts: number, signal: AbortSignal): Promise<Allocation> {
  const bytes = { data: 0, zero: 0, hole: 0 }
  const shares = new Float64Array(disk.size === 0 ? 0 : parts)
  const partBytes = disk.size / parts
  for await (const extent of disk.extents(0, disk.size)) {
    signal.throwIfAborted()
    bytes[extent.kind] += extent.length
    if (extent.kind === 'data') addTo(shares, extent, partBytes)
  }
  return {
    dataBytes: bytes.data,
    zeroBytes: bytes.zero,
    holeBytes: bytes.hole,
    shares: [...shares].map((share) => Math.min(1, share)),
  }
}

function addTo(shares: Float64Array, { offset, length }: Extent, partBytes: number): void {
  const end = offset + length
  const last = Math.min(shares.length - 1, Math.floor((end - 1) / partBytes))
  for (let part = Math.min(shares.length - 1, Math.floor(offset / partBytes)); part <= last; part += 1) {
    const covered = Math.min(end, (part + 1) * partBytes) - Math.max(offset, part * partBytes)
    shares[part]! += Math.max(0, covered) / partBytes
  }
}

const SHADES = ['░', '▒', '▓'] as const

/** `█▓░   ▒`: the more data, the darker; whatever is there shows. */
export const drawn = (shares: readonly number[]): string =>
  shares.map((share) => (share === 0 ? ' ' : share > 0.99 ? '█' : SHADES[Math.min(2, Math.floor(share * 3))])).join('')
