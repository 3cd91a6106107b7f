import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB, MiB } from '../../src/base/units.ts'
import { ntfs } from '../../src/disk/guest/filesystems/ntfs/ntfs.ts'
import { fillAged } from './aged-tree.ts'
import { fuzzFileSystem } from './fuzz.ts'
import { cannotMount, mountedByFuse, newVolume } from './volumes.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const SECTOR_BYTES = 512

test('whatever NTFS bytes say, files or typed errors', { skip: cannotMount('ntfs-3g', 'mkfs.ntfs', 'losetup') }, async () => {
  await using volume = await newVolume(3 * MiB, ['mkfs.ntfs', '-q', '-F', '-f', '-C', '-c', '1024'])
  await mountedByFuse(['ntfs-3g', '-o', 'compression,streams_interface=xattr'], volume.path, (root) => {
    fillAged(root, { seed: 1, names: 10, maxBytes: 20_000, without: ['owners', 'devices', 'acl', 'bytes', 'times'] })
    const packed = join(root, 'packed')
    mkdirSync(packed)
    execFileSync('setfattr', ['-n', 'system.ntfs_attrib', '-v', '0x10080000', packed])
    writeFileSync(join(packed, 'text'), Buffer.alloc(60_000, 'again and again '))
    for (let index = 0; index < 30; index += 1) writeFileSync(join(packed, `one of many ${index}`), '')
  })
  const bytes = new Uint8Array(await readFile(volume.path))
  const opened = await fuzzFileSystem(ntfs, { volume: bytes, runs: RUNS, seed: 1, sectors: telling(bytes) })
  assert.ok(opened > RUNS / 4, `${opened} opened`)
})

/** Sectors of records, of index blocks, and some of data. */
function telling(bytes: Uint8Array): number[] {
  const found = [0]
  for (let at = 0; at < bytes.length; at += KiB) {
    const magic = Buffer.from(bytes.subarray(at, at + 4)).toString('latin1')
    const isUsed = magic === 'FILE' && (bytes[at + 22]! & 1) !== 0
    if (isUsed || magic === 'INDX') found.push(at / SECTOR_BYTES, at / SECTOR_BYTES, at / SECTOR_BYTES + 1)
  }
  return found
}
