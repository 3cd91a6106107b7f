import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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
  const remove = () => rm(folder, { recursive: true, force: true })
  try {
    await writeFile(path, '')
    await truncate(path, bytes)
    const [program = '', ...words] = mkfs
    execFileSync(program, [...words, path], { stdio: ['ignore', 'ignore', 'pipe'], env: withSbin })
    return { path, [Symbol.asyncDispose]: remove }
  } catch (error) {
    await remove()
    throw error
  }
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

/** What the kernel must know to mount what a program makes; of FUSE the kernel knows one thing. */
const kernelTypes: Readonly<Record<string, string>> = {
  'mkfs.ext2': 'ext2',
  'mkfs.ext3': 'ext3',
  'mkfs.ext4': 'ext4',
  'mkfs.xfs': 'xfs',
  'mkfs.btrfs': 'btrfs',
  mksquashfs: 'squashfs',
  'ntfs-3g': 'fuse',
  'mount.exfat-fuse': 'fuse',
}

/** Why what these programs make cannot be mounted here, as the reason of a skip; `false` where it can. A container may have a root who may not. */
export function cannotMount(...programs: string[]): string | false {
  if (process.getuid?.() !== 0) return 'mounting needs root'
  const missing = missingTool('mount', 'losetup', 'mke2fs', 'getfattr', 'setfattr', 'setfacl', ...programs)
  if (missing) return missing
  for (const type of programs.map((program) => kernelTypes[program])) {
    if (type !== undefined && !isKnownToKernel(type)) return `the kernel has no ${type}`
  }
  hasLoopMounts ??= triesLoopMount()
  return hasLoopMounts ? false : 'mounting by a loop device is not allowed here'
}

let hasLoopMounts: boolean | undefined

function isKnownToKernel(type: string): boolean {
  const isListed = () => readFileSync('/proc/filesystems', 'utf8').split(/\s+/).includes(type)
  if (isListed()) return true
  spawnSync('modprobe', ['-q', type], { env: withSbin, stdio: 'ignore' })
  return isListed()
}

function triesLoopMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-loop-'))
  const path = join(folder, 'volume')
  const isDone = (program: string, ...words: string[]) =>
    spawnSync(program, words, { env: withSbin, stdio: 'ignore' }).status === 0
  try {
    writeFileSync(path, new Uint8Array(1024 * 1024))
    mkdirSync(join(folder, 'root'))
    return (
      isDone('mke2fs', '-q', '-F', path) &&
      isDone('mount', '-o', 'loop,ro', path, join(folder, 'root')) &&
      isDone('umount', join(folder, 'root'))
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
