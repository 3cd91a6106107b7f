/** Images to measure with, made of what every Debian machine has: the files under /usr. */
import { randomBytes } from 'node:crypto'
import { type FileHandle, open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../src/base/units.ts'

/** Alternately 1 MiB of random bytes and 1 MiB of zeros. */
export async function halfFullImage(path: string, bytes: number): Promise<string> {
  await using file = await open(path, 'w')
  for (let at = 0; at < bytes; at += 2 * MiB) await file.write(randomBytes(Math.min(MiB, bytes - at)), 0, undefined, at)
  await file.truncate(bytes)
  return path
}

/** Random data in a few places, the rest a hole. */
export async function mostlyEmptyImage(path: string, bytes: number): Promise<string> {
  await using file = await open(path, 'w')
  await file.truncate(bytes)
  const piece = Math.min(8 * MiB, Math.floor(bytes / 16))
  for (let index = 0; index < 8; index++) await file.write(randomBytes(piece), 0, piece, Math.floor((bytes / 8) * index))
  return path
}

/** A copy of `from` in which one part in fifty, in runs of 1 MiB, is other data: what an update leaves. */
export async function nextVersion(from: string, path: string): Promise<string> {
  const { size } = await stat(from)
  await using source = await open(from)
  await using target = await open(path, 'w')
  const buffer = Buffer.alloc(MiB)
  for (let at = 0, index = 0; at < size; at += MiB, index++) {
    const { bytesRead } = await source.read(buffer, 0, MiB, at)
    const part = index % 50 === 7 ? randomBytes(bytesRead) : buffer.subarray(0, bytesRead)
    if (!isZero(part)) await target.write(part, 0, part.length, at)
  }
  await target.truncate(size)
  return path
}

/** `count` images of a system: each has a third of its size in files, and every one after the first has a few more than the last. */
export async function systemImages(folder: string, bytes: number, count: number): Promise<readonly string[]> {
  const paths: string[] = []
  for (let index = 0; index < count; index++) {
    const path = join(folder, `system-${index}.raw`)
    await using file = await open(path, 'w')
    await writeFiles(file, '/usr', Math.floor((bytes / 3) * (1 + index / 20)))
    await file.truncate(bytes)
    paths.push(path)
  }
  return paths
}

/** Files below `folder`, one after the other, each at a multiple of 4 KiB as file systems have them, until `bytes` are written. */
async function writeFiles(file: FileHandle, folder: string, bytes: number): Promise<void> {
  let at = MiB
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  for (const entry of entries.filter((each) => each.isFile())) {
    if (at >= bytes) return
    await using source = await open(join(entry.parentPath, entry.name))
    const content = await source.readFile()
    await file.write(content.subarray(0, bytes - at), 0, undefined, at)
    at += Math.ceil(content.length / 4096) * 4096
  }
}

const isZero = (bytes: Uint8Array) => Buffer.compare(bytes, Buffer.alloc(bytes.length)) === 0
