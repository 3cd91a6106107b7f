import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'

/** What a file system may not have. */
export type Ability = 'links' | 'symlinks' | 'owners' | 'devices' | 'attributes' | 'acl' | 'bytes' | 'holes' | 'times'

export interface TreeWish {
  readonly seed: number
  /** Names that are made: a part of them is deleted again. */
  readonly names: number
  /** Of the largest file. */
  readonly maxBytes: number
  readonly without?: readonly Ability[]
}

/**
 * Fills a directory as users and time do: files of all sizes, with holes, names of all kinds, links, devices, attributes, a directory of many;
 * then a third is deleted, moved, cut off or added to, so that what is free is in pieces. The same seed makes the same tree.
 */
export function fillAged(root: string, { seed, names, maxBytes, without = [] }: TreeWish): void {
  const random = numbersOf(seed)
  const below = (end: number) => Math.floor(random() * end)
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!
  const has = (ability: Ability) => !without.includes(ability)
  const folders = [root]
  const files: string[] = []
  for (let index = 0; index < names; index += 1) {
    const path = join(pick(folders.slice(-20)), nameOf(index, random))
    const kind = random()
    const isFolder = kind < 0.12
    const isLink = kind >= 0.12 && kind < 0.2 && has('symlinks')
    if (isFolder) {
      mkdirSync(path)
      folders.push(path)
    } else if (isLink) symlinkSync(pick(['../a', '/etc/passwd', `${'long/'.repeat(1 + below(60))}end`]), path)
    else if (kind < 0.24 && has('links') && files.length > 0) linkSync(pick(files), path)
    else if (kind < 0.26 && has('devices'))
      execFileSync('mknod', [path, pick(['b', 'c']), String(below(250)), String(below(250))])
    else if (kind < 0.27 && has('devices')) execFileSync('mkfifo', [path])
    else {
      writeInPieces(
        path,
        random,
        below(20) === 0 ? maxBytes : pick([0, 10, 100, 5000, 70_000, Math.floor(maxBytes / 4)]),
        has('holes'),
      )
      files.push(path)
    }
    if (has('owners')) {
      lchownSync(path, below(70_000), below(70_000))
      if (!isLink) chmodSync(path, below(0o10000) | (isFolder ? 0o700 : 0))
    }
    if (has('attributes') && !isLink && kind >= 0.27 && below(6) === 0) {
      execFileSync('setfattr', ['-n', `user.${pick(['origin', 'note', 'x'])}`, '-v', 'value '.repeat(1 + below(120)), path])
    }
    if (has('acl') && kind >= 0.27 && below(15) === 0) execFileSync('setfacl', ['-m', 'u:1234:rw,g:77:r', path])
  }
  for (const path of files) {
    const fate = random()
    if (fate < 0.3) rmSync(path)
    else if (fate < 0.4) renameSync(path, `${path}.moved`)
    else if (fate < 0.45) truncateSync(path, below(maxBytes))
    else if (fate < 0.5) appendFileSync(path, noise(random, below(100_000)))
  }
  if (has('bytes')) writeFileSync(Buffer.concat([Buffer.from(join(root, 'latin-')), Buffer.of(0xe9, 0xff, 0x41)]), 'not UTF-8')
  const many = join(root, 'many')
  mkdirSync(many)
  const entry = (index: number) => join(many, `entry-${String(index).padStart(6, '0')}-${'x'.repeat(index % 40)}`)
  for (let index = 0; index < names; index += 1) writeFileSync(entry(index), index % 3 === 0 ? 'small' : '')
  for (let index = 0; index < names; index += 3) rmSync(entry(index))
  if (has('times')) for (const name of readdirSync(root).slice(0, 5)) lutimesSync(join(root, name), 1e9, 4_000_000_000)
}

function nameOf(index: number, random: () => number): string {
  const kind = random()
  if (kind < 0.05) return `${'n'.repeat(1 + Math.floor(random() * 200))}-${index}`
  if (kind < 0.1) return `Grüße ${index} ünd 🐧`
  if (kind < 0.13) return `.hidden-${index}`
  return `${['file', 'lib', 'config', 'x'][Math.floor(random() * 4)]}-${index}${['', '.so', '.conf', '.txt', '.d'][Math.floor(random() * 5)]}`
}

function writeInPieces(path: string, random: () => number, bytes: number, withHoles: boolean): void {
  const file = openSync(path, 'w')
  const step = Math.max(1, Math.ceil(bytes / (1 + Math.floor(random() * 12))))
  for (let at = 0; at < bytes; at += step) {
    if (withHoles && random() < 0.2) continue
    writeSync(file, noise(random, Math.min(step, bytes - at)), 0, undefined, at)
  }
  if (withHoles) ftruncateSync(file, bytes)
  closeSync(file)
}

/** Half of it text, which packs. */
function noise(random: () => number, bytes: number): Uint8Array {
  if (random() < 0.5) return Buffer.alloc(bytes, `line ${random()} of some text that a packer likes, `)
  const made = new Uint8Array(bytes)
  for (let at = 0; at < bytes; at += 1) made[at] = random() * 256
  return made
}

/** Mulberry32. */
export function numbersOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
