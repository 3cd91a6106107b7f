import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memorySource } from '../../src/disk/block/memory-source.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { openFileSystem } from '../../src/disk/guest/filesystems/index.ts'
import { checkFiles } from '../../src/disk/guest/findings/check.ts'
import { missingTool } from '../peers/command.ts'
import { numbersOf } from './aged-tree.ts'
import { dirtyLinux, madeSecrets } from './dirty-tree.ts'
import { withVolume } from './guest-tree.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 0) / 100 || 100

test('a damaged volume is looked at as far as it can be, and what cannot is said', {
  skip: missingTool('mke2fs', 'openssl', 'ssh-keygen'),
}, async () => {
  const files: Record<string, string> = Object.assign({}, ...Object.values(dirtyLinux(madeSecrets())))
  delete files['etc/shadow'] // comparing passwords takes its time
  const volume = await withVolume(files, (disk) => disk.read(0, disk.size))
  const used: number[] = []
  for (let at = 0; at < volume.length; at += 512) if (volume.subarray(at, at + 512).some((byte) => byte !== 0)) used.push(at)
  const random = numbersOf(7)
  const below = (count: number) => Math.floor(random() * count)
  let [incomplete, findings] = [0, 0]
  for (let run = 0; run < RUNS; run += 1) {
    const mutant = volume.slice()
    for (let pokes = 1 + below(24); pokes > 0; pokes -= 1) mutant[used[below(used.length)]! + below(512)] = below(256)
    const opened = await openFileSystem(memorySource(mutant.length, [{ offset: 0, bytes: mutant }])).catch(() => undefined)
    if (!opened) continue
    const found = await checkFiles(new FileTree(opened), { family: run % 8 === 0 ? 'windows' : 'linux' })
    assert.equal(found.isComplete || found.notes.length > 0, true)
    incomplete += found.isComplete ? 0 : 1
    findings += found.findings.length
  }
  assert.ok(incomplete > RUNS / 20 && findings > RUNS, `${incomplete} incomplete, ${findings} findings of ${RUNS}`)
})
