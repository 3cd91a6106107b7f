import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { missingTool } from '../peers/command.ts'

export interface Volume extends AsyncDisposable {
  /** Of the file that holds it. */
  readonly path: string
}

/** A file of `bytes`, made a file system by a program: `['mkfs.ext4', '-q']`, whose last argument it is. */
export async function newVolume(bytes: number, mkfs: readonly string[]): Promise<Volume> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-volume-'))
  const path = join(folder, 'volume')
  await writeFile(path, '')
  await truncate(path, bytes)
  const [program = '', ...words] = mkfs
  execFileSync(program, [...words, path], { stdio: ['ignore', 'ignore', 'pipe'], env: withSbin })
  return { path, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) }
}

const withSbin = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

/** Mounts a volume by the kernel while `work` goes on with the folder. Only root can. */
export async function mounted<Result>(
  path: string,
  options: string,
  work: (folder: string) => Result | Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-mount-'))
  execFileSync('mount', ['-o', options === '' ? 'loop' : `loop,${options}`, path, folder], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  try {
    return await work(folder)
  } finally {
    execFileSync('umount', [folder])
    await rm(folder, { recursive: true })
  }
}

/** The same by a program of FUSE, `ntfs-3g` or `mount.exfat-fuse`; on a block device, since only of that an unmount waits for the program. */
export async function mountedByFuse<Result>(
  [program, ...words]: readonly [string, ...string[]],
  path: string,
  work: (folder: string) => Result | Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-mount-'))
  const device = execFileSync('losetup', ['--find', '--show', path], { encoding: 'utf8', env: withSbin }).trim()
  try {
    execFileSync(program, [...words, device, folder], { stdio: ['ignore', 'ignore', 'pipe'], env: withSbin })
    try {
      return await work(folder)
    } finally {
      execFileSync('umount', [folder])
    }
  } finally {
    execFileSync('losetup', ['--detach', device], { env: withSbin })
    await rm(folder, { recursive: true })
  }
}

/** Why the kernel cannot mount here, as the reason of a skip; `false` where it can. */
export function cannotMount(...programs: string[]): string | false {
  if (process.getuid?.() !== 0) return 'mounting needs root'
  return missingTool('mount', 'getfattr', 'setfattr', 'setfacl', ...programs)
}
