import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { readAnatomy } from '../../src/disk/guest/anatomy.ts'
import { missingTool } from '../peers/command.ts'
import { LINK, withVolume } from './guest-tree.ts'

const skip = missingTool('mke2fs')

test('what a disk holds is told as facts that can be written down', { skip }, async () => {
  const files = {
    'etc/os-release': 'ID=alpine\nVERSION_ID=3.20\nPRETTY_NAME="Alpine Linux v3.20"\n',
    'etc/alpine-release': '3.20.3\n',
    'etc/hostname': 'box\n',
    'etc/passwd': 'root::0:0:root:/root:/bin/ash\n',
    'etc/apk/repositories': 'https://alpine.example/main\n',
    'etc/runlevels/default/sshd': '#',
    'bin/busybox': Buffer.concat([Buffer.from('7f454c46020101', 'hex'), Buffer.alloc(9), Buffer.from('0200b700', 'hex')]),
    'sbin/init': `${LINK}/bin/busybox`,
  }
  const anatomy = await withVolume(files, (disk) => readAnatomy(disk))
  assert.deepEqual(JSON.parse(JSON.stringify(anatomy)), anatomy)
  const [volume] = anatomy.volumes
  assert.deepEqual([volume?.name, volume?.type, anatomy.table], ['disk', 'ext4', null])
  assert.ok(volume!.usedBytes! > 0 && volume!.usedBytes! < volume!.totalBytes!)
  const [system] = anatomy.systems
  const { distro, version, fullVersion, architecture, hostname, init } = system!.os!
  assert.deepEqual(
    [distro, version, fullVersion, architecture, hostname, init],
    ['alpine', '3.20', '3.20.3', 'aarch64', 'box', 'busybox'],
  )
  assert.deepEqual(
    system!.accounts!.map(({ name, password, canLogIn }) => [name, password, canLogIn]),
    [['root', 'empty', true]],
  )
  assert.deepEqual(
    [system!.services!.length, system!.repositories!.length, system!.changedFiles, system!.notes],
    [1, 1, null, []],
  )
})

test('what cannot be read is said, and hides nothing else', { skip }, async () => {
  const files = {
    'etc/os-release': `${LINK}/etc/os-release`, // to itself
    'usr/lib/os-release': 'ID=debian\n',
    'etc/passwd': 'root:*:0:0:root:/root:/bin/sh\n',
    'etc/apt/sources.list': `deb ${'x'.repeat(3_000_000)}`,
  }
  const [system] = (await withVolume(files, (disk) => readAnatomy(disk))).systems
  assert.equal(system!.os, null)
  assert.equal(system!.repositories, null)
  assert.equal(system!.accounts?.length, 1)
  assert.match(
    system!.notes.join('\n'),
    /the release of the system could not be read: .*more than 40 symbolic links.*repositories could not be read: \/etc\/apt\/sources.list has/s,
  )
})

test('a disk of nothing holds nothing', async () => {
  const { volumes, systems } = await readAnatomy(bytesSource(new Uint8Array(100_000)))
  assert.deepEqual([volumes.map(({ type }) => type), systems], [[null], []])
})
