import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ServiceError } from '../../base/errors.ts'

const execute = promisify(execFile)
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024
/** As Debian's policy has them (5.6.1): nothing in them is an option or a path. */
const PACKAGE = /^[a-z0-9][a-z0-9+.-]{1,127}$/

/** Files of Debian's packages, without installing them; apt verifies what it brings. */
export class DebianPackages {
  readonly #cache: string

  /** @param cache a folder in which packages are kept */
  constructor(cache: string) {
    this.#cache = cache
  }

  /** What a package that only names another stands for: `linux-image-amd64` → `linux-image-6.1.0-56-amd64`. */
  async behind(name: string, pattern: RegExp): Promise<string> {
    const depends = await tool('apt-cache', ['depends', '--important', named(name)])
    const found = [...depends.matchAll(/Depends: (\S+)/g)].map(([, one]) => one!).find((one) => pattern.test(one))
    return found ?? name
  }

  /** Puts the files of a package into a folder. @throws ServiceError `unavailable`, `invalid-request` */
  async unpack(name: string, into: string): Promise<void> {
    await mkdir(into, { recursive: true })
    await tool('dpkg-deb', ['-x', await this.#brought(named(name)), into])
  }

  /** @returns where the package lies */
  async #brought(name: string): Promise<string> {
    await mkdir(this.#cache, { recursive: true })
    const told = await tool('apt-get', ['-q', 'download', '--print-uris', name])
    const [, file = '', bytes = ''] = /^'[^']+' (\S+) (\d+)/m.exec(told) ?? []
    if (!/^[A-Za-z0-9+.%~_-]+\.deb$/.test(file)) {
      throw new ServiceError('unavailable', `apt-get does not know where package ${name} is: apt-get update may help`)
    }
    const kept = join(this.#cache, file)
    if ((await stat(kept).catch(() => undefined))?.size === Number(bytes)) return kept
    const work = await mkdtemp(join(this.#cache, 'download-'))
    try {
      await tool('apt-get', ['-q', 'download', name], work)
      await rename(join(work, file), kept)
    } finally {
      await rm(work, { recursive: true, force: true })
    }
    return kept
  }
}

function named(name: string): string {
  if (PACKAGE.test(name)) return name
  throw new ServiceError('invalid-request', `${JSON.stringify(name.slice(0, 80))} is not the name of a Debian package`)
}

/** @throws ServiceError `unavailable` with what the program said last */
export async function tool(program: string, words: readonly string[], cwd?: string): Promise<string> {
  const env = { ...process.env, LC_ALL: 'C.UTF-8', PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` }
  try {
    return (await execute(program, words, { maxBuffer: MAX_OUTPUT_BYTES, env, ...(cwd === undefined ? {} : { cwd }) })).stdout
  } catch (error) {
    const { code, stderr } = error as { readonly code?: unknown; readonly stderr?: string }
    if (code === 'ENOENT') {
      throw new ServiceError('unavailable', `${program} is not installed: build the system on a machine with Debian or Ubuntu`)
    }
    const last = (stderr ?? '').trim().split('\n').slice(-3).join(' ')
    throw new ServiceError('unavailable', `${program} failed: ${last || String(error)}`, {}, { cause: error })
  }
}
