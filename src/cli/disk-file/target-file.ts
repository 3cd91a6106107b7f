import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, lstat, open, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { runWithFile } from './run-with-file.ts'
import { isWithoutUnnamed, O_TMPFILE } from './unnamed-file.ts'

export interface TargetOptions {
  /** Whether a file that is there may be replaced. */
  readonly force: boolean
  /** Whether it is on the disk before it has its name. */
  readonly isSynced: boolean
}

/**
 * A new file that appears under its name when it is whole and durable, and not at all else: it has no name until then, so that
 * nothing is left of it even by SIGKILL. Where the file system has no files without names, or the system no way to name them, it is `.NAME.….part` until then, which
 * SIGKILL leaves.
 */
export class TargetFile {
  readonly #path: string
  readonly #options: TargetOptions
  readonly #handle: FileHandle
  /** Undefined: it has no name yet. */
  #part: string | undefined
  #isOpen = true
  #writing: Promise<void> = Promise.resolve()

  private constructor(path: string, options: TargetOptions, handle: FileHandle, part: string | undefined) {
    this.#path = path
    this.#options = options
    this.#handle = handle
    this.#part = part
  }

  /**
   * @throws ServiceError `conflict` where there is one; `invalid-request` for what is no file; `not-found` without its folder
   */
  static async create(path: string, { force, isSynced }: TargetOptions): Promise<TargetFile> {
    const found = await lstat(path).catch(() => undefined)
    const there = found?.isSymbolicLink() ? await stat(path).catch(() => undefined) : found
    if (there?.isBlockDevice()) {
      throw new ServiceError(
        'invalid-request',
        `"${path}" is a disk of this machine: \`imprint deploy\` writes the disk of an image onto one, and asks first`,
      )
    }
    if (found && !there?.isFile()) throw new ServiceError('invalid-request', `"${path}" is not a regular file`)
    if (found && !force) throw new ServiceError('conflict', `"${path}" exists; choose another name, or replace it with --force`)
    const real = found ? await realpath(path) : path // a link stays one; what it leads to is replaced
    const folder = dirname(real)
    const mode = there ? there.mode & 0o777 : 0o666
    try {
      const handle = await open(folder, O_TMPFILE | constants.O_RDWR, mode)
      const { status } = await runWithFile('ln', ['-L', '--version'], handle.fd)
      if (status !== 0) {
        await handle.close()
        return new TargetFile(real, { force, isSynced }, ...(await openPart(real, mode)))
      }
      return new TargetFile(real, { force, isSynced }, handle, undefined)
    } catch (error) {
      if (!isWithoutUnnamed(error)) throw error
      if (!(await stat(folder).catch(() => undefined))?.isDirectory())
        throw new ServiceError('not-found', `the folder "${folder}" does not exist`)
    }
    return new TargetFile(real, { force, isSynced }, ...(await openPart(real, mode)))
  }

  /** Everything of it is a hole until it is written. */
  truncate(bytes: number): Promise<void> {
    return this.#handle.truncate(bytes)
  }

  /** One at a time: the kernel lets no two write to a file at once, and those who wait cost processor time. */
  write(bytes: Uint8Array, offset: number): Promise<void> {
    const written = this.#writing.then(() => this.#write(bytes, offset))
    this.#writing = written.catch(() => {})
    return written
  }

  async #write(bytes: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      done += (await this.#handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
    }
  }

  /** Brings what is written so far to the disk. */
  async sync(): Promise<void> {
    if (this.#options.isSynced) await this.#handle.datasync()
  }

  /** Gives it its name. @throws ServiceError `conflict` where somebody made one of that name meanwhile */
  async finish(): Promise<void> {
    const { isSynced } = this.#options
    if (isSynced) await this.#handle.sync()
    if (this.#options.force) {
      const part = this.#part ?? (await this.#named(partName(this.#path)))
      this.#part = part
      await rename(part, this.#path)
      this.#part = undefined
    } else if (this.#part === undefined) {
      await this.#named(this.#path)
    } else {
      await link(this.#part, this.#path).catch((error: NodeJS.ErrnoException) => {
        throw error.code === 'EEXIST' ? taken(this.#path) : error
      })
    }
    await this.close()
    if (!isSynced) return
    const folder = await open(dirname(this.#path), constants.O_RDONLY)
    await folder.sync().finally(() => folder.close())
  }

  /** Node has no linkat(2); that of GNU is essential on Debian and Ubuntu. */
  async #named(path: string): Promise<string> {
    const { status, said } = await runWithFile('ln', ['-L', '-T', '--', '/proc/self/fd/3', path], this.#handle.fd)
    if (status === 0) return path
    if (await lstat(path).catch(() => undefined)) throw taken(path)
    throw new ServiceError(
      'unavailable',
      `the file is whole, but cannot be given its name "${path}": ${said || 'there is no ln'}`,
    )
  }

  /** What is not finished is gone. */
  async close(): Promise<void> {
    if (!this.#isOpen) return
    this.#isOpen = false
    await this.#handle.close()
    if (this.#part !== undefined) await rm(this.#part, { force: true })
  }
}

const taken = (path: string): ServiceError =>
  new ServiceError('conflict', `"${path}" came into being meanwhile, and is left alone; choose another name`)

async function openPart(path: string, mode: number): Promise<[FileHandle, string]> {
  const part = partName(path)
  return [await open(part, 'wx+', mode), part]
}

const partName = (path: string): string =>
  join(dirname(path), `.${basename(path).slice(0, 200)}.${randomBytes(6).toString('hex')}.part`)
