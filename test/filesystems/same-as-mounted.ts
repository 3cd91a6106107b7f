import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { bytesOfName, nameOfBytes } from '../../src/disk/guest/filesystems/file-name.ts'
import type { FileSystem, NodeKind } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'

/** What is compared beside paths, kinds, sizes, contents. */
export type Fact = 'mode' | 'owner' | 'links' | 'modified' | 'changed' | 'attributes' | 'device'
export const allFacts: readonly Fact[] = ['mode', 'owner', 'links', 'modified', 'changed', 'attributes', 'device']

/** Everything that is known of a tree, by path. */
export type Facts = Map<string, Record<string, unknown>>

/** By our reader. */
export async function factsOf(files: FileSystem, facts: readonly Fact[] = allFacts): Promise<Facts> {
  const found: Facts = new Map()
  for await (const { path, node } of new FileTree(files).walk('/')) {
    const { kind, mode, uid, gid, links, modifiedNs, changedNs, device } = node
    const one: Record<string, unknown> = { kind }
    if (kind === 'file') {
      const data = await files.data(node)
      Object.assign(one, { bytes: node.bytes, digest: await digestOf(data) })
      assert.equal(data.size, node.bytes, path)
    }
    if (kind === 'symlink') one.target = await files.readLink(node)
    if (facts.includes('mode')) one.mode = mode
    if (facts.includes('owner')) one.owner = [uid, gid]
    if (facts.includes('links')) one.links = links
    if (facts.includes('modified')) one.modified = modifiedNs
    if (facts.includes('changed')) one.changed = changedNs
    if (facts.includes('device') && device) one.device = [device.major, device.minor]
    if (facts.includes('attributes')) {
      one.attributes = [...(await files.attributes(node))]
        .map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`)
        .sort()
    }
    found.set(path, one)
  }
  return found
}

/** By the kernel, of what is mounted at `root`. */
export function factsOfMounted(root: string, facts: readonly Fact[] = allFacts): Facts {
  const found: Facts = new Map()
  const attributes = facts.includes('attributes') ? attributesBelow(root) : new Map<string, string[]>()
  const waiting: Buffer[] = [Buffer.alloc(0)]
  while (waiting.length > 0) {
    const below = waiting.pop()!
    const path = Buffer.concat([Buffer.from(root), below])
    const stat = lstatSync(path, { bigint: true })
    const name = below.length === 0 ? '/' : nameOfBytes(below)
    const kind = kindOf(Number(stat.mode))
    const one: Record<string, unknown> = { kind }
    if (kind === 'file')
      Object.assign(one, { bytes: Number(stat.size), digest: createHash('sha256').update(readFileSync(path)).digest('hex') })
    if (kind === 'symlink') one.target = nameOfBytes(readlinkSync(path, 'buffer'))
    if (facts.includes('mode')) one.mode = Number(stat.mode) & 0o7777
    if (facts.includes('owner')) one.owner = [Number(stat.uid), Number(stat.gid)]
    if (facts.includes('links')) one.links = Number(stat.nlink)
    if (facts.includes('modified')) one.modified = stat.mtimeNs
    if (facts.includes('changed')) one.changed = stat.ctimeNs
    if (facts.includes('device') && (kind === 'block' || kind === 'character'))
      one.device = [Number(stat.rdev >> 8n) & 0xfff, Number(stat.rdev & 0xffn)]
    if (facts.includes('attributes')) one.attributes = attributes.get(name) ?? []
    found.set(name, one)
    if (kind === 'directory') {
      for (const entry of readdirSync(path, { encoding: 'buffer' })) waiting.push(Buffer.concat([below, Buffer.from('/'), entry]))
    }
  }
  return found
}

/** Each difference by its path, so that a failure can be read. */
export function assertSameFacts(ours: Facts, theirs: Facts): void {
  const differences: string[] = []
  for (const [path, facts] of theirs) {
    const mine = ours.get(path)
    if (!mine) differences.push(`${JSON.stringify(path)} is missing`)
    for (const key of Object.keys(mine ? { ...facts, ...mine } : {})) {
      const [a, b] = [shown(mine![key]), shown(facts[key])]
      if (a !== b) differences.push(`${JSON.stringify(path)} ${key}: ${a}, and theirs ${b}`)
    }
  }
  for (const path of ours.keys()) if (!theirs.has(path)) differences.push(`${JSON.stringify(path)} is not there`)
  assert.deepEqual(differences.slice(0, 20), [], `${differences.length} differences`)
  assert.ok(ours.size > 0)
}

const shown = (value: unknown): string =>
  JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? String(each) : each)) ?? 'undefined'

const kinds: Readonly<Record<number, NodeKind>> = {
  1: 'fifo',
  2: 'character',
  4: 'directory',
  6: 'block',
  8: 'file',
  10: 'symlink',
  12: 'socket',
}
const kindOf = (mode: number): NodeKind => kinds[(mode >>> 12) & 0xf]!

export async function digestOf(source: BlockSource): Promise<string> {
  const hash = createHash('sha256')
  for (let at = 0; at < source.size; at += 1_000_000) hash.update(await source.read(at, Math.min(1_000_000, source.size - at)))
  return hash.digest('hex')
}

/** By getfattr, whose names have `\ooo` for what is not printable. */
function attributesBelow(root: string): Map<string, string[]> {
  const text = execFileSync('getfattr', ['-h', '-R', '-P', '-d', '-m', '-', '-e', 'hex', '--absolute-names', root], {
    maxBuffer: 2 ** 28,
    encoding: 'latin1',
  })
  const found = new Map<string, string[]>()
  for (const block of text.split('\n\n')) {
    const [head, ...lines] = block.split('\n').filter((line) => line !== '')
    if (head === undefined) continue
    const bytes = Buffer.from(
      head
        .slice('# file: '.length)
        .replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
      'latin1',
    )
    const path = nameOfBytes(bytes.subarray(Buffer.byteLength(root)))
    found.set(path === '' ? '/' : path, lines.map((line) => line.replace('=0x', '=').replace(/^([^=]+)$/, '$1=')).sort())
  }
  return found
}

/** Names that survive both ways. */
export const isReversible = (path: string): boolean => nameOfBytes(bytesOfName(path)) === path
