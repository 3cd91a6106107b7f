import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { test } from 'node:test'
import { MiB } from '../../src/base/units.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { btrfs } from '../../src/disk/guest/filesystems/btrfs/btrfs.ts'
import { numbersOf } from './aged-tree.ts'
import { assertSameFacts, type Facts, factsOf, factsOfMounted } from './same-as-mounted.ts'
import { cannotMount, mounted, newVolume } from './volumes.ts'

const SEEDS = Number(process.env.LOG_SEEDS ?? 6)
const forms = [
  { mkfs: [], mount: 'compress-force=zstd' },
  { mkfs: ['-O', '^no-holes', '-n', '4096'], mount: 'max_inline=0' },
  { mkfs: ['-O', '^extref'], mount: '' },
] as const

let logs = 0
for (let seed = 0; seed < SEEDS; seed += 1) {
  const { mkfs, mount } = forms[seed % forms.length]!
  test(`what was synced and not committed is read as the kernel replays it, seed ${seed}`, {
    skip: cannotMount('mkfs.btrfs'),
  }, async () => {
    await using volume = await newVolume(192 * MiB, ['mkfs.btrfs', '-q', ...mkfs])
    const copy = `${volume.path}.crashed`
    await mounted(volume.path, mount === '' ? 'commit=300' : `commit=300,${mount}`, (root) => {
      execFileSync('btrfs', ['subvolume', 'create', `${root}/inner`], { stdio: 'ignore' })
      const lives = [new Life(root, seed), new Life(`${root}/inner`, seed + 1000)]
      for (const life of lives) life.live(70, false)
      execFileSync('sync', ['-f', root])
      for (const life of lives) life.live(15, true)
      copyFileSync(volume.path, copy)
    })
    const crashedNs = BigInt(Date.now()) * 1_000_000n
    const disk = await openFileSource(copy)
    const files = (await btrfs.open(disk))!
    const [note = ''] = files.notes // none where the kernel committed all of it in place of logging it
    assert.equal(note === '', (await logRootOf(copy)) === 0n)
    if (note !== '') assert.match(note, /its log .* is read as if replayed/)
    logs += note === '' ? 0 : 1
    const ours = await factsOf(files)
    await disk.close()
    const theirs = await mounted(copy, '', factsOfMounted)
    withoutTimesOfReplay(ours, theirs, crashedNs)
    assertSameFacts(ours, theirs)
    await rm(copy)
  })
}

test('most of them had a log', { skip: cannotMount('mkfs.btrfs') }, () => assert.ok(logs > SEEDS / 2, `${logs} of ${SEEDS}`))

/** Where it begins; 0: there is none. */
async function logRootOf(path: string): Promise<bigint> {
  await using file = await open(path)
  const { buffer } = await file.read(Buffer.alloc(8), 0, 8, 65_536 + 96)
  return buffer.readBigUInt64LE()
}

/** Where the kernel takes a name away as it replays, it gives that moment to what it was in, and what it led to. */
function withoutTimesOfReplay(ours: Facts, theirs: Facts, crashedNs: bigint): void {
  for (const [path, facts] of theirs) {
    for (const key of ['modified', 'changed']) {
      if ((facts[key] as bigint) < crashedNs) continue
      for (const side of [facts, ours.get(path)]) delete side?.[key]
    }
  }
}

/** Does to files what programs do, and syncs some of them. */
class Life {
  readonly #random: () => number
  readonly #folders: string[]
  readonly #files: string[] = []
  #names = 0

  constructor(root: string, seed: number) {
    this.#random = numbersOf(seed + 1)
    this.#folders = [root]
  }

  live(steps: number, syncs: boolean): void {
    for (let step = 0; step < steps; step += 1) {
      const touched = this.#act()
      if (syncs && this.#below(3) > 0) for (const path of touched.slice(0, 1 + this.#below(2))) sync(path)
    }
    if (syncs) sync(this.#make())
  }

  /** @returns what is worth a sync, the nearest first */
  #act(): string[] {
    const action = this.#below(14)
    if (action < 3 || this.#files.length < 5) return [this.#make(), this.#pick(this.#folders)]
    const path = this.#pick(this.#files)
    const folder = path.slice(0, path.lastIndexOf('/'))
    if (action === 3) this.#write(path, this.#below(60_000), 1 + this.#below(40_000))
    else if (action === 4) this.#write(path, statSync(path).size, 1 + this.#below(20_000))
    else if (action === 5) truncateSync(path, this.#below(100_000))
    else if (action === 6) truncateSync(path, 0)
    else if (action === 7 || action === 8) {
      const to = this.#name()
      renameSync(path, to)
      this.#files.splice(this.#files.indexOf(path), 1, to)
      return [to, folder]
    } else if (action === 9) {
      const to = this.#name()
      linkSync(path, to)
      this.#files.push(to)
      return [this.#below(2) === 0 ? to : path, folder]
    } else if (action === 10) {
      rmSync(path)
      this.#files.splice(this.#files.indexOf(path), 1)
      return [folder]
    } else if (action === 11) {
      const name = `user.${this.#pick(['a', 'b', 'c'])}`
      execFileSync('setfattr', ['-n', name, '-v', 'v'.repeat(1 + this.#below(50)), path])
      if (this.#below(2) === 0) execFileSync('setfattr', ['-x', name, path])
    } else if (action === 12) {
      const [mode, start] = [this.#pick(['-n', '-p', '-z']), this.#below(20) * 4096]
      execFileSync('fallocate', [mode, '-o', String(start), '-l', String((1 + this.#below(10)) * 4096), path])
    } else {
      const made = this.#name()
      if (this.#below(2) === 0) symlinkSync('some/where', made)
      else {
        mkdirSync(made)
        this.#folders.push(made)
        return [made]
      }
      return [folder]
    }
    return [path, folder]
  }

  #make(): string {
    const path = this.#name()
    closeSync(openSync(path, 'w'))
    if (this.#below(4) > 0) this.#write(path, this.#below(3) * 5000, this.#pick([10, 500, 3000, 30_000, 300_000]))
    this.#files.push(path)
    return path
  }

  #write(path: string, at: number, bytes: number): void {
    const file = openSync(path, 'r+')
    writeSync(file, Buffer.alloc(bytes, `what is written ${this.#random()} `), 0, bytes, at)
    closeSync(file)
  }

  #name(): string {
    this.#names += 1
    return `${this.#pick(this.#folders)}/${'n'.repeat(1 + this.#below(30))}-${this.#names}`
  }
  #below(end: number): number {
    return Math.floor(this.#random() * end)
  }
  #pick<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!
  }
}

function sync(path: string): void {
  const file = openSync(path, 'r')
  fsyncSync(file)
  closeSync(file)
}
