import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'

const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

/** What follows it is where a symbolic link leads. */
export const LINK = 'link to '

type Files = Readonly<Record<string, string | Uint8Array>>

/** A tree on a real ext4, with these files in it, while `work` goes on. */
export const withTree = <Result>(files: Files, work: (tree: FileTree) => Promise<Result>): Promise<Result> =>
  withVolume(files, async (disk) => work(new FileTree((await openFileSystem(disk))!)))

/** An ext4 with these files in it, while `work` goes on. mke2fs makes it. */
export async function withVolume<Result>(files: Files, work: (disk: BlockSource) => Promise<Result>): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-tree-'))
  const [root, volume] = [join(folder, 'root'), join(folder, 'volume')]
  let bytes = 0
  await mkdir(root)
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true })
    if (typeof content === 'string' && content.startsWith(LINK)) await symlink(content.slice(LINK.length), join(root, path))
    else await writeFile(join(root, path), content)
    bytes += Buffer.byteLength(content) + 8192
  }
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', root, volume, `${8192 + Math.ceil(bytes / 1024) * 2}k`], {
    env,
    stdio: 'pipe',
  })
  const disk = await openFileSource(volume)
  try {
    return await work(disk)
  } finally {
    await disk.close()
    await rm(folder, { recursive: true })
  }
}
