import type { ImprintService } from '../../test/e2e/image-service.ts'
import type { DebianCloud } from '../../test/peers/debian-cloud.ts'
import type { KnownAccount, Role } from '../../test/peers/identity-client.ts'

/** One line of the table: the same thing done by Imprint and by a peer, one after the other in the same run. */
export interface Row {
  readonly what: string
  readonly unit: 's' | 'ms' | '/s' | 'MiB'
  readonly imprint: Measured
  readonly peer: Measured & { readonly name: string }
  /** Least ratio in Imprint's favour that is asked for, and the one that is aimed at. */
  readonly must?: number
  readonly aim?: number
  /** Absolute limit on Imprint's own value. */
  readonly atMost?: number
  readonly note?: string
}
export interface Measured {
  readonly median: number
  readonly all: readonly number[]
}

export interface Sizes {
  /** Bytes of the image that goes up and down. */
  readonly imageBytes: number
  /** Bytes of the one that is mostly empty. */
  readonly emptyBytes: number
  /** Of each version of the images that are stored together. */
  readonly versionBytes: number
  readonly repeats: number
  /** How long requests are sent for. */
  readonly seconds: number
  /** Among how many images lists are asked for. */
  readonly populations: readonly number[]
  readonly parallelUploads: number
}
export const fullSizes: Sizes = {
  imageBytes: 2 ** 31,
  emptyBytes: 10 * 2 ** 30,
  versionBytes: 2 ** 31,
  repeats: 5,
  seconds: 10,
  populations: [100, 100_000],
  parallelUploads: 16,
}
/** Says nothing about speed: shows that every case runs. */
export const smokeSizes: Sizes = {
  imageBytes: 8 * 2 ** 20,
  emptyBytes: 64 * 2 ** 20,
  versionBytes: 16 * 2 ** 20,
  repeats: 1,
  seconds: 1,
  populations: [100],
  parallelUploads: 4,
}

export interface Bench {
  readonly sizes: Sizes
  /** For files that cases make; it goes afterwards. */
  readonly folder: string
  readonly imprint: ImprintService
  readonly glance: DebianCloud & { readonly cast: Readonly<Record<Role, KnownAccount & { readonly token: string }>> }
}

export interface BenchCase {
  readonly name: string
  readonly summary: string
  /** Programs that it needs besides Glance's. */
  readonly tools?: readonly string[]
  run(bench: Bench): AsyncIterable<Row>
}

/** Does both in turn, `repeats` times each, and keeps every value. */
export async function sideBySide(
  repeats: number,
  imprint: (round: number) => Promise<number>,
  peer: (round: number) => Promise<number>,
): Promise<{ readonly imprint: Measured; readonly peer: Measured }> {
  const values = { imprint: [] as number[], peer: [] as number[] }
  for (let round = 0; round < repeats; round++) {
    values.peer.push(await peer(round))
    values.imprint.push(await imprint(round))
  }
  return { imprint: measured(values.imprint), peer: measured(values.peer) }
}

export function measured(all: readonly number[]): Measured {
  const sorted = all.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const median = sorted.length % 2 === 1 ? sorted[middle]! : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
  return { median, all }
}

export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return (performance.now() - began) / 1000
}
