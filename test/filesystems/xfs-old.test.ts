import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import type { FileSystem } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { missingTool } from '../peers/command.ts'
import { fillAged } from './aged-tree.ts'
import { assertSameFacts, type Fact, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { newVolume } from './volumes.ts'

// Kernels of today leave version 4 out, so mkfs.xfs itself fills these volumes, by a list of what is to be in them.
const mkfs = ['mkfs.xfs', '-q', '-f', '--unsupported', '-m', 'crc=0']
const cases = [
  { name: 'version 4 with blocks of 512 bytes', words: ['-b', 'size=512', '-n', 'ftype=0'] },
  { name: 'version 4 with kinds in directories', words: ['-n', 'ftype=1'] },
  {
    name: 'version 4 with numbers of projects of 16 bits, inodes of 1 KiB',
    words: ['-i', 'projid32bit=0,size=1024', '-n', 'size=16384'],
  },
  {
    name: 'version 4 without case, with the first form of log',
    words: ['-n', 'version=ci', '-i', 'size=512', '-b', 'size=1024', '-l', 'version=1'],
  },
]
const facts: readonly Fact[] = ['mode', 'owner', 'links', 'device']
const isRoot = process.getuid?.() === 0

for (const [seed, { name, words }] of cases.entries()) {
  test(`${name}: what was put in is there`, {
    skip: isRoot ? missingTool('mkfs.xfs', 'xfs_db') : 'devices need root',
  }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'imprint-tree-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const [tree, list] = [join(folder, 'tree'), join(folder, 'list')]
    mkdirSync(tree)
    fillAged(tree, { seed, names: 200, maxBytes: MiB, without: ['links', 'holes', 'attributes', 'acl', 'times', 'bytes'] })
    symlinkSync('far/'.repeat(255), join(tree, 'long'))
    writeFileSync(list, `-\n0 0\n${listing(tree, '').join('\n')}\n`)
    await using volume = await newVolume(96 * MiB, [...mkfs, ...words, '-p', list])
    const few = setAttributes(volume.path, '/many', 2)
    const many = setAttributes(volume.path, '/long', 200)
    const disk = await openFileSource(volume.path)
    const files = await openFileSystem(disk)
    assert.deepEqual(files?.notes, [])
    assertSameFacts(withoutTheRoot(await factsOf(files, facts)), withoutTheRoot(factsOfMounted(tree, facts)))
    assert.equal((await files!.find(files!.root, 'MANY'))?.name, words.includes('version=ci') ? 'many' : undefined)
    assert.deepEqual(await attributesOf(files!, '/many'), few)
    assert.deepEqual(await attributesOf(files!, '/long'), many)
    await disk.close()
  })
}

async function attributesOf(files: FileSystem, path: string): Promise<string[]> {
  const found = await new FileTree(files).find(path, false)
  return [...(await files.attributes(found!.node))].map(([name, value]) => `${name}=${Buffer.from(value)}`).sort()
}

const withoutTheRoot = <Value>(found: Map<string, Value>) => new Map([...found].filter(([path]) => path !== '/'))

/** As mkfs.xfs takes it: a name, then a word of kind, set-user-id, set-group-id and permissions, then ids and what it is. It knows no blanks and no sticky bit. */
function listing(root: string, below: string): string[] {
  const lines = [`${below === '' ? '' : `${below.split('/').at(-1)} `}d${modeOf(join(root, below))}`]
  const entries = readdirSync(join(root, below)).map((name) => {
    const path = join(root, below, name)
    const plain = name.replaceAll(' ', '_')
    if (plain !== name) renameSync(path, join(root, below, plain))
    return plain
  })
  for (const name of entries) {
    const path = join(root, below, name)
    const stat = lstatSync(path)
    if (!stat.isSymbolicLink()) chmodSync(path, stat.mode & (stat.isDirectory() ? 0o4777 : 0o6777)) // what is in a directory with set-group-id has it, too
    if (stat.isDirectory()) lines.push(...listing(root, join(below, name)))
    else if (stat.isSymbolicLink()) lines.push(`${name} l${modeOf(path)} ${readlinkSync(path)}`)
    else if (stat.isFile()) lines.push(`${name} -${modeOf(path)} ${path}`)
    else if (stat.isFIFO()) lines.push(`${name} p${modeOf(path)}`)
    else lines.push(`${name} ${stat.isBlockDevice() ? 'b' : 'c'}${modeOf(path)} ${stat.rdev >> 8} ${stat.rdev & 0xff}`)
  }
  return [...lines, '$']
}

function modeOf(path: string): string {
  const { mode, uid, gid } = lstatSync(path)
  const permissions = (mode & 0o777).toString(8).padStart(3, '0')
  return `${mode & 0o4000 ? 'u' : '-'}${mode & 0o2000 ? 'g' : '-'}${permissions} ${uid} ${gid}`
}

function setAttributes(volume: string, path: string, count: number): string[] {
  const set = Array.from({ length: count }, (_, index) => ({ name: `name-${index}`, bytes: 1 + ((index * index * 7) % 3000) }))
  const words = set.flatMap(({ name, bytes }) => ['-c', `attr_set -${bytes % 2 ? 'r' : 'u'} -v ${bytes} ${name}`])
  execFileSync('/usr/sbin/xfs_db', ['-x', '-c', `path ${path}`, ...words, volume], { stdio: ['ignore', 'ignore', 'pipe'] })
  return set.map(({ name, bytes }) => `${bytes % 2 ? 'trusted' : 'user'}.${name}=${'v'.repeat(bytes)}`).sort()
}
