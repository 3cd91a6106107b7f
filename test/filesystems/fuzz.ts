import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FileSystemDriver } from '../../src/disk/guest/filesystems/file-system.ts'
import { described, fuzzInThread } from '../fixtures/fuzz/fuzz.ts'

export interface FuzzWish {
  /** A whole volume. */
  readonly volume: Uint8Array
  /** Of 512 bytes, that are changed; absent: those that are not zeros. */
  readonly sectors?: readonly number[]
  readonly runs: number
  readonly seed?: number
  /** A module whose `summed` makes the checksums of a volume right again, so that what was changed is looked at. */
  readonly summedBy?: URL
}

/**
 * Pokes at a volume and reads everything of it: all answers are files, or typed errors; no read is outside the volume, and none goes on
 * for ever. @returns how many mutants still opened
 */
export async function fuzzFileSystem(
  { name }: FileSystemDriver,
  { volume, sectors, runs, seed = 1, summedBy }: FuzzWish,
): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-fuzz-'))
  const path = join(folder, 'volume')
  await writeFile(path, volume)
  if (sectors) await writeFile(`${path}.sectors`, JSON.stringify(sectors))
  const url = new URL('./fuzz-target.ts', import.meta.url)
  url.search = new URLSearchParams({ driver: name, path, ...(summedBy ? { summedBy: summedBy.href } : {}) }).toString()
  try {
    const { taken, find } = await fuzzInThread({ url: url.href, name, seed, first: 0, runs: Math.ceil(runs) })
    if (find) assert.fail(await described(name, seed, find))
    return taken
  } finally {
    await rm(folder, { recursive: true })
  }
}
