import { constants } from 'node:fs'
import { type FileHandle, open, rename, writeFile } from 'node:fs/promises'
import { MiB } from '../../../base/units.ts'

/**
 * QEMU appends what a guest writes to its serial port to one file, without end. While the service runs it cuts the file: what is
 * there becomes the older part, and the file starts anew. What the guest writes in the moment between is lost, a few bytes of a
 * guest that has just written megabytes. While no service runs nobody cuts.
 */
const CUT_AT_BYTES = MiB
/** QEMU may have put something else in the place of its file, where a guest broke out of it: no link is followed. */
const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = constants
const FLAGS = O_RDWR | O_NOFOLLOW | O_NONBLOCK

export class ConsoleLog {
  readonly #path: string
  readonly #olderPath: string

  /** @param olderPath where QEMU may not write */
  constructor(path: string, olderPath: string) {
    this.#path = path
    this.#olderPath = olderPath
  }

  /** What was written elsewhere, before anything is written here. */
  async begin(text: Uint8Array): Promise<void> {
    await writeFile(this.#olderPath, text.subarray(-CUT_AT_BYTES), { mode: 0o600 })
  }

  /** At least the newest MiB of what was written is kept; more than 2 MiB are not. */
  async tail(bytes: number): Promise<Uint8Array> {
    const newer = await tailOf(this.#path, bytes)
    if (newer.length === bytes) return newer
    const older = await tailOf(this.#olderPath, bytes - newer.length)
    return Buffer.concat([older, newer])
  }

  async cut(): Promise<void> {
    await withFile(this.#path, async (file, size) => {
      if (size <= CUT_AT_BYTES) return
      const unfinished = `${this.#olderPath}.new`
      await writeFile(unfinished, await read(file, size, CUT_AT_BYTES), { mode: 0o600 })
      await rename(unfinished, this.#olderPath)
      await file.truncate(0)
    })
  }
}

const tailOf = async (path: string, bytes: number): Promise<Uint8Array> =>
  (await withFile(path, (file, size) => read(file, size, Math.min(bytes, 2 * CUT_AT_BYTES)))) ?? Buffer.alloc(0)

/** Of the end of a file that may grow meanwhile. */
async function read(file: FileHandle, size: number, bytes: number): Promise<Uint8Array> {
  const wanted = Buffer.alloc(Math.min(size, bytes))
  const { bytesRead } = await file.read(wanted, 0, wanted.length, size - wanted.length)
  return wanted.subarray(0, bytesRead)
}

/** Undefined where there is no such file, or it is none. */
async function withFile<T>(path: string, use: (file: FileHandle, size: number) => Promise<T>): Promise<T | undefined> {
  const file = await open(path, FLAGS).catch((error: NodeJS.ErrnoException) => {
    if (['ENOENT', 'ELOOP', 'EISDIR', 'ENXIO'].includes(error.code ?? '')) return undefined
    throw error
  })
  if (!file) return undefined
  try {
    const stat = await file.stat()
    return stat.isFile() ? await use(file, stat.size) : undefined
  } finally {
    await file.close()
  }
}
