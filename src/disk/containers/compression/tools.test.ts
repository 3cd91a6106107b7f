/** What Debian's own tools pack comes out here as it went in. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { patterned } from '../../../../test/fixtures/disk/disks.ts'
import { missingTool, must } from '../../../../test/peers/command.ts'
import { smallBzip2, smallText, smallXz } from './small-files.suite.ts'
import { unpacked } from './unpacked.ts'

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'unpack-'))
})
after(() => rm(folder, { recursive: true, force: true }))

/** Text, noise, runs of every length around those that the formats treat specially, far repetitions. */
function disk(): Buffer {
  const noise = randomBytes(200_000)
  const runs = Array.from({ length: 600 }, (_, length) => Buffer.alloc(length, length % 7))
  const text = Buffer.from(smallText.repeat(40))
  return Buffer.concat([
    text,
    noise,
    ...runs,
    Buffer.alloc(1_500_000),
    noise,
    Buffer.alloc(99_999, 'ab'),
    patterned(300_000, 9),
    text,
  ])
}

const lines: Readonly<Record<string, readonly string[]>> = {
  gzip: ['gzip -c', 'gzip -9 -c'],
  zstd: ['zstd -c', 'zstd -19 --check -c', 'zstd -T2 -c --long=27'],
  bzip2: ['bzip2 -1 -c', 'bzip2 -9 -c'],
  xz: [
    'xz -0 -c --check=none',
    'xz -1 -c --check=crc32',
    'xz -6 -c',
    'xz -9e -c --check=sha256',
    'xz -T2 --block-size=100KiB -c',
    'xz --lzma2=preset=6,lc=0,lp=4,pb=4 -c',
    'xz --lzma2=preset=6,lc=4,lp=0,pb=0 -c',
    'xz --lzma2=preset=3,dict=4KiB,lc=1,lp=2,pb=1 -c',
    'xz --delta=dist=1 --lzma2 -c',
    'xz --delta=dist=256 --lzma2=preset=1 -c',
  ],
}
const unpack = async (path: string) => {
  const { compression, bytes } = await unpacked(createReadStream(path), { maxBytes: 2 ** 30, freeBytes: 2 ** 30 })
  return { compression, bytes: await buffer(bytes) }
}
for (const [tool, each] of Object.entries(lines)) {
  for (const line of each) {
    test(`${line}: unpacked as it was`, { skip: missingTool(tool) }, async () => {
      const plain = disk()
      const [from, to] = [join(folder, 'plain'), join(folder, 'packed')]
      await writeFile(from, plain)
      await must(['sh', '-c', `${line} "$0" > "$1"`, from, to])
      const got = await unpack(to)
      assert.equal(got.compression, tool)
      assert.ok(plain.equals(got.bytes))
    })
  }
  test(`${tool}: several files after each other are one`, { skip: missingTool(tool) }, async () => {
    const [from, to] = [join(folder, 'part'), join(folder, 'parts')]
    const plain = randomBytes(100_000)
    await writeFile(from, plain)
    await must(['sh', '-c', `for i in 1 2 3; do ${tool} -c "$0"; done > "$1"; : | ${tool} -c >> "$1"`, from, to])
    assert.ok(Buffer.concat([plain, plain, plain]).equals((await unpack(to)).bytes))
  })
}

test('the small files of the other tests hold their text', async () => {
  for (const packed of [...smallBzip2, ...smallXz]) {
    const path = join(folder, 'small')
    await writeFile(path, packed)
    assert.equal((await unpack(path)).bytes.toString(), smallText)
  }
})

/** Instructions of each kind at every place and with every target, between others: what a filter changes, and what it must not. */
function program(): Buffer {
  const words = randomBytes(600_000)
  const bytes = [0xe8, 0xe9, 0xeb, 0x94, 0x97, 0x90, 0xb0, 0x48, 0x4b, 0x40, 0x7f, 0xf0, 0xf8, 0x12, 0x16, 0x00, 0xff]
  for (let at = 0; at < words.length; at += 1) {
    const choice = words[at] as number
    if (choice < 150) words[at] = bytes[choice % bytes.length] as number
  }
  return words
}
const filters = ['x86', 'powerpc', 'ia64', 'arm', 'armthumb', 'sparc', 'arm64']
const chains = [
  ...filters.map((name) => `--${name}`),
  ...filters.map((name) => `--${name}=start=4096`),
  '--x86 --delta=dist=4',
  '--delta=dist=3 --arm64 --x86',
]
for (const chain of chains) {
  test(`xz ${chain} --lzma2: unpacked as it was`, { skip: missingTool('xz') }, async () => {
    const code = await readFile(process.execPath).then((file) => file.subarray(2 ** 22, 2 ** 22 + 1_500_001))
    const plain = Buffer.concat([program(), code, program().subarray(0, 7)])
    const [from, to] = [join(folder, 'program'), join(folder, 'filtered')]
    await writeFile(from, plain)
    await must(['sh', '-c', `xz ${chain} --lzma2=preset=1 -c "$0" > "$1"`, from, to])
    assert.ok(plain.equals((await unpack(to)).bytes))
  })
}

for (const options of ['-1', '-6 --check=crc32', '-9']) {
  test(`xz ${options}: zeros for longer than the dictionary and between data come out as such`, {
    skip: missingTool('xz'),
  }, async () => {
    const noise = randomBytes(70_001)
    const again = Buffer.alloc(3_000_001, noise)
    const plain = Buffer.concat([Buffer.alloc(5_000_003), noise, Buffer.alloc(9_000_000), again, Buffer.alloc(7_000_000), noise])
    const [from, to] = [join(folder, 'zeros'), join(folder, 'zeros.xz')]
    await writeFile(from, plain)
    await must(['sh', '-c', `xz ${options} -c "$0" > "$1"`, from, to])
    assert.ok(plain.equals((await unpack(to)).bytes))
  })
}

test('xz: zeros by fours between streams are padding, others are not', async () => {
  const path = join(folder, 'padded')
  const [one, two] = smallXz as [Uint8Array, Uint8Array]
  await writeFile(path, Buffer.concat([one, Buffer.alloc(8), two, Buffer.alloc(4)]))
  assert.equal((await unpack(path)).bytes.toString(), smallText + smallText)
  await writeFile(path, Buffer.concat([one, Buffer.alloc(7), two]))
  await assert.rejects(unpack(path), { code: 'invalid-image', message: /follows the last stream/ })
  await writeFile(path, Buffer.concat([one, Buffer.alloc(3)]))
  await assert.rejects(unpack(path), { code: 'invalid-image', message: /no multiple of 4/ })
})

test('gzip: zeros behind the last member are padding, and something behind them is not', async () => {
  const path = join(folder, 'padded.gz')
  const packed = gzipSync(smallText)
  await writeFile(path, Buffer.concat([packed, Buffer.alloc(300_000)]))
  assert.equal((await unpack(path)).bytes.toString(), smallText)
  await writeFile(path, Buffer.concat([packed, Buffer.alloc(300_000), Buffer.from('trailer')]))
  await assert.rejects(unpack(path), { code: 'invalid-image', message: /follows the last member/ })
  await writeFile(path, Buffer.concat([packed, Buffer.from('trailer')]))
  await assert.rejects(unpack(path), { code: 'invalid-image' })
})
