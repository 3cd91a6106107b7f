import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { missingTool, must } from '../../../../test/peers/command.ts'
import { openFileSource } from '../../block/file-source.ts'
import { bytesSource, memorySource } from '../../block/memory-source.ts'
import type { Archive } from './archive.ts'
import { smallTar, smallZip, tarHeader } from './small-archives.suite.ts'
import { listTar } from './tar.ts'
import { tarBytes, writeTar } from './write-tar.ts'
import { listZip } from './zip.ts'

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archives-'))
  await mkdir(join(folder, 'in'))
  await mkdir(join(folder, 'in', 'deep'))
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(folder, 'in', name), bytes)
})
after(() => rm(folder, { recursive: true, force: true }))

const longName = `${'a-long-name-'.repeat(15)}.raw`
const files: Readonly<Record<string, Buffer>> = {
  'disk.raw': Buffer.concat([randomBytes(70_000), Buffer.alloc(300_000), randomBytes(123)]),
  'deep/empty': Buffer.alloc(0),
  [longName]: Buffer.from('text '.repeat(5000)),
  'grüße.txt': Buffer.from('x'),
}

async function assertHolds(archive: Archive, wanted: Readonly<Record<string, Buffer>>): Promise<void> {
  assert.deepEqual(archive.members.map(({ name }) => name).toSorted(), Object.keys(wanted).toSorted())
  for (const member of archive.members) {
    const bytes = wanted[member.name] as Buffer
    assert.equal(member.bytes, bytes.length)
    assert.ok(bytes.equals(await buffer(member.stream())), member.name)
    if (!member.isPlain) continue
    const source = member.open()
    assert.equal(source.size, bytes.length)
    assert.ok(bytes.equals(await source.read(0, source.size)), member.name)
  }
}

for (const format of ['ustar', 'gnu', 'pax', 'posix']) {
  test(`tar --format=${format}: every member is there, where it lies`, { skip: missingTool('tar') }, async () => {
    const path = join(folder, `${format}.tar`)
    const names = Object.keys(files).filter((name) => format !== 'ustar' || name !== longName)
    await must(['tar', `--format=${format}`, '-cf', path, '-C', join(folder, 'in'), './disk.raw', 'deep', ...names.slice(2)])
    const source = await openFileSource(path)
    await assertHolds(await listTar(source), Object.fromEntries(names.map((name) => [name, files[name] as Buffer])))
    await source.close()
  })
}

for (const options of [['-r'], ['-r', '-0'], ['-r', '-fz'], ['-r', '-fz-'], ['-r', '-z']]) {
  test(`zip ${options.join(' ')}: every member is there`, { skip: missingTool('zip') }, async () => {
    const path = join(folder, `${options.join('')}.zip`)
    await must(['zip', '-q', ...options, path, '.'], { cwd: join(folder, 'in'), input: 'a comment\n.\n' })
    const source = await openFileSource(path)
    await assertHolds(await listZip(source), files)
    await source.close()
  })
}

test('zip from a pipe, with sizes behind the data', { skip: missingTool('zip') }, async () => {
  const path = join(folder, 'piped.zip')
  await must(['sh', '-c', 'cat "$0" | zip -q - - > "$1"', join(folder, 'in', longName), path])
  await assertHolds(await listZip(bytesSource(await readFile(path))), { '-': files[longName] as Buffer })
})

test('a tar of 20 GiB, and its member, cost no memory', { skip: missingTool('tar') }, async () => {
  const path = join(folder, 'large.raw')
  await writeFile(path, '')
  await truncate(path, 20 * 2 ** 30)
  const headers = await must(['sh', '-c', 'tar -c -C "$0" --format=gnu large.raw | head -c 512 | base64', folder])
  const pax = await must(['sh', '-c', 'tar -c -C "$0" --format=posix large.raw | head -c 1536 | base64', folder])
  for (const text of [headers, pax]) {
    const header = Buffer.from(text, 'base64')
    const file = memorySource(header.length + 20 * 2 ** 30 + 1024, [{ offset: 0, bytes: header }])
    const [member] = (await listTar(file)).members
    assert.equal(member?.bytes, 20 * 2 ** 30)
    assert.equal((await member.open().read(20 * 2 ** 30 - 5, 5)).length, 5)
  }
})

test('what is written as tar is read by Debian’s tar and by us, and is the same each time', {
  skip: missingTool('tar'),
}, async () => {
  const wanted = { 'disk.ovf': Buffer.from('<x/>'), 'disk.raw': files['disk.raw'] as Buffer, empty: Buffer.alloc(0) }
  const members = Object.entries(wanted).map(([name, bytes]) => ({
    name,
    bytes: bytes.length,
    stream: async function* () {
      yield bytes
    },
  }))
  const written = await buffer(writeTar(members))
  assert.ok(written.equals(await buffer(writeTar(members))))
  assert.equal(written.length, tarBytes(members))
  await assertHolds(await listTar(bytesSource(written)), wanted)
  const path = join(folder, 'ours.tar')
  await writeFile(path, written)
  await mkdir(join(folder, 'out'))
  await must(['tar', '-xf', path, '-C', join(folder, 'out')])
  for (const [name, bytes] of Object.entries(wanted)) assert.ok(bytes.equals(await readFile(join(folder, 'out', name))))
})

test('a member of more than 8 GiB has its size in a pax header', { skip: missingTool('tar') }, async () => {
  const bytes = 8 * 2 ** 30 + 700
  const mebibyte = new Uint8Array(2 ** 20)
  const member = {
    name: 'large.raw',
    bytes,
    async *stream() {
      for (let left = bytes; left > 0; left -= mebibyte.length)
        yield left < mebibyte.length ? mebibyte.subarray(0, left) : mebibyte
    },
  }
  const start: Uint8Array[] = []
  let total = 0
  for await (const piece of writeTar([member])) {
    if (total < 4096) start.push(piece)
    total += piece.length
  }
  assert.equal(total, tarBytes([member]))
  const head = Buffer.concat(start).subarray(0, 1536)
  const [read] = (await listTar(memorySource(total, [{ offset: 0, bytes: head }]))).members
  assert.equal(read?.bytes, bytes)
  const path = join(folder, 'large.tar')
  await writeFile(path, head)
  await truncate(path, total)
  assert.match(await must(['tar', '-tvf', path]), / 8589935292 .*large\.raw/)
  await rm(path)
})

test('a member that is not as long as it says ends the writing', async () => {
  const short = {
    name: 'a',
    bytes: 5,
    stream: async function* () {
      yield Buffer.from('four')
    },
  }
  await assert.rejects(buffer(writeTar([short])), { code: 'corrupt', message: /5 bytes and has 4/ })
  await assert.rejects(buffer(writeTar([{ ...short, bytes: 3 }])), { code: 'corrupt', message: /has more/ })
})

test('a tar with a link made by Debian’s tar is refused', { skip: missingTool('tar') }, async () => {
  await mkdir(join(folder, 'links'))
  await symlink('/etc/passwd', join(folder, 'links', 'disk.raw'))
  await must(['tar', '-cf', join(folder, 'links.tar'), '-C', join(folder, 'links'), 'disk.raw'])
  await assert.rejects(listTar(bytesSource(await readFile(join(folder, 'links.tar')))), {
    code: 'invalid-image',
    message: /a symbolic link/,
  })
  await must(['zip', '-q', '-y', '-r', join(folder, 'links.zip'), 'disk.raw'], { cwd: join(folder, 'links') })
  await assert.rejects(listZip(bytesSource(await readFile(join(folder, 'links.zip')))), {
    code: 'invalid-image',
    message: /a link or a device/,
  })
})

const paxOf = (record: string) =>
  smallTar([
    { name: 'pax', type: 'x', body: record },
    { name: 'disk', body: 'disk' },
  ])
const named = (name: string) => smallTar([{ name, body: 'disk' }])
const whole = smallTar([{ name: 'disk', body: 'disk' }])
const refusedTars: readonly { name: string; bytes: Uint8Array; says: RegExp; code?: string }[] = [
  ...['../x', '/abs', 'a/../../b', 'a//b', '..', 'C:x', 'a\\b', 'a/./b', ''].map((name) => ({
    name: `the name "${name}"`,
    bytes: named(name),
    says: /name/,
  })),
  { name: 'a name with a line break', bytes: named('a\nb'), says: /control characters/ },
  { name: 'a name that turns its direction', bytes: named('a\u202eb'), says: /control characters/ },
  { name: 'a name that is not UTF-8', bytes: smallTar([{ name: '\xff', body: '' }], 'latin1'), says: /not UTF-8/ },
  { name: 'a NUL in a pax path', bytes: paxOf('12 path=a\0b\n'), says: /control characters/ },
  { name: 'a pax path of 10 KiB', bytes: paxOf(`10251 path=${'a'.repeat(10_239)}\n`), says: /10239 bytes; 1024 is the limit/ },
  { name: 'a pax header of 5 MiB', bytes: paxOf('x'.repeat(5 * 2 ** 20)), says: /4194304 and 4194304 are the limits/ },
  {
    name: 'a long name of 1 MiB',
    bytes: smallTar([{ name: 'long', type: 'L', body: 'x'.repeat(2 ** 20) }]),
    says: /65536 and 4194304 are the limits/,
  },
  {
    name: '100 pax headers of 60 KiB',
    bytes: smallTar(Array.from({ length: 100 }, () => ({ name: 'pax', type: 'x', body: '6 a=b\n'.repeat(10_000) }))),
    says: /and 4200000 with those before/,
  },
  { name: 'pax records without an end', bytes: paxOf('12 path=abcd'), says: /length key=value/ },
  { name: 'a pax record longer than its header', bytes: paxOf('99 path=abc\n'), says: /length key=value/ },
  { name: 'a pax size of 2^60', bytes: paxOf('28 size=1152921504606846976\n'), says: /no number below 2\^53/ },
  { name: 'a pax size beyond the file', bytes: paxOf('16 size=1000000\n'), says: /has 1000000 bytes/ },
  ...(['1', '2', '3', '4', '6'] as const).map((type) => ({
    name: `type ${type}`,
    bytes: smallTar([{ name: 'disk', type, body: '' }]),
    says: /only regular files/,
  })),
  {
    name: 'an unknown type',
    bytes: smallTar([{ name: 'disk', type: 'M', body: '' }]),
    says: /unknown type/,
    code: 'unsupported',
  },
  {
    name: 'one name twice',
    bytes: smallTar([
      { name: 'a.ovf', body: '' },
      { name: 'a.ovf', body: '' },
    ]),
    says: /two members/,
  },
  {
    name: 'one name in two cases',
    bytes: smallTar([
      { name: 'a.ovf', body: '' },
      { name: 'A.OVF', body: '' },
    ]),
    says: /two members/,
  },
  {
    name: 'a path for all members',
    bytes: smallTar([
      { name: 'g', type: 'g', body: '12 path=abc\n' },
      { name: 'disk', body: '' },
    ]),
    says: /for all members/,
  },
  { name: 'a negative size', bytes: tarHeader('disk', '0', Buffer.from('ffffffffffffffffffffff00', 'hex')), says: /negative/ },
  {
    name: 'a size of 2^70 to base 256',
    bytes: tarHeader('disk', '0', Buffer.from('800000400000000000000000', 'hex')),
    says: /2\^53/,
  },
  {
    name: 'a size beyond the file',
    bytes: tarHeader('disk', '0', Buffer.from('00000001000\0')),
    says: /has 512 bytes, of which 0/,
  },
  { name: 'a size that is not octal', bytes: tarHeader('disk', '0', Buffer.from('00000000009\0')), says: /not octal/ },
  { name: 'a wrong checksum', bytes: Buffer.from(whole).fill('x', 0, 1), says: /checksum of the header at byte 0/ },
  { name: 'no end', bytes: whole.subarray(0, 1024), says: /without two blocks of zeros/ },
  { name: 'half an end', bytes: whole.subarray(0, 1536), says: /one block of zeros/ },
  { name: 'something behind the end', bytes: Buffer.concat([whole, Buffer.from('x')]), says: /follows its end/ },
  { name: '2 MiB behind the end', bytes: Buffer.concat([whole, Buffer.alloc(2 ** 21)]), says: /1048576 is the limit/ },
  {
    name: '10,000 members',
    bytes: smallTar(Array.from({ length: 10_000 }, (_, at) => ({ name: `m${at}`, body: '' }))),
    says: /more than 4096 entries/,
  },
  {
    name: '10,000 folders',
    bytes: smallTar(Array.from({ length: 10_000 }, () => ({ name: 'd/', type: '5', body: '' }))),
    says: /more than 4096 entries/,
  },
  { name: 'a path and no member', bytes: smallTar([{ name: 'pax', type: 'x', body: '9 path=a\n' }]), says: /is missing/ },
]
for (const { name, bytes, says, code = 'invalid-image' } of refusedTars) {
  test(`tar: refused is ${name}`, async () => {
    await assert.rejects(listTar(bytesSource(bytes)), { code, message: says })
  })
}

const two = [
  { name: 'a', body: 'one' },
  { name: 'b', body: 'two' },
]
const refusedZips: readonly { name: string; bytes: Uint8Array; says: RegExp; code?: string }[] = [
  ...['../x', '/abs', 'a\\b', ''].map((name) => ({
    name: `the name "${name}"`,
    bytes: smallZip([{ name, body: '' }]),
    says: /name/,
  })),
  {
    name: 'one name twice',
    bytes: smallZip([
      { name: 'a', body: '1' },
      { name: 'A', body: '2' },
    ]),
    says: /two members/,
  },
  { name: 'members that overlap', bytes: smallZip(two, { overlap: true }), says: /inside "a"/ },
  { name: 'another name in the local header', bytes: smallZip(two, { localName: 'c' }), says: /another name/ },
  { name: 'another size in the local header', bytes: smallZip(two, { localBytes: 2 }), says: /another size/ },
  {
    name: 'something before it',
    bytes: Buffer.concat([Buffer.from('xx'), smallZip(two)]),
    says: /does not end at its end record/,
  },
  { name: 'something behind it', bytes: Buffer.concat([smallZip(two), Buffer.from('xx')]), says: /no end of central directory/ },
  { name: 'encryption', bytes: smallZip(two, { flags: 1 }), says: /encrypted/, code: 'unsupported' },
  { name: 'another method', bytes: smallZip(two, { method: 14 }), says: /method 14/, code: 'unsupported' },
  {
    name: 'a bomb',
    bytes: smallZip([{ name: 'a', body: 'x' }], { method: 8, bytes: 5000 }),
    says: /deflate can make 1032 of one/,
  },
  { name: 'more entries than it counts', bytes: smallZip(two, { count: 1 }), says: /counts 1 entries where there are 2/ },
  { name: 'a directory of 4 GiB', bytes: smallZip(two, { directoryBytes: 2 ** 32 - 2 }), says: /4194304 is the limit/ },
  { name: 'a directory elsewhere', bytes: smallZip(two, { directoryOffset: 5 }), says: /does not end at its end record/ },
  { name: 'several disks', bytes: smallZip(two, { disk: 1 }), says: /several disks/, code: 'unsupported' },
  { name: 'a link', bytes: smallZip(two, { mode: 0o120777 }), says: /a link or a device/ },
  {
    name: '5,000 members',
    bytes: smallZip(Array.from({ length: 5000 }, (_, at) => ({ name: `m${at}`, body: '' }))),
    says: /more than 4096 entries/,
  },
]
for (const { name, bytes, says, code = 'invalid-image' } of refusedZips) {
  test(`zip: refused is ${name}`, async () => {
    await assert.rejects(listZip(bytesSource(bytes)), { code, message: says })
  })
}

test('zip: a member with another checksum, one that is cut off and one that says it is shorter are refused when they are read', async () => {
  const read = async (bytes: Uint8Array) => buffer((await listZip(bytesSource(bytes))).members[0]!.stream())
  await assert.rejects(read(smallZip(two, { crc: 7 })), { code: 'invalid-image', message: /checksum is another/ })
  await assert.rejects(read(smallZip([{ name: 'a', body: 'text '.repeat(99) }], { method: 8, bytes: 20 })), {
    code: 'invalid-image',
    message: /more than 20 bytes/,
  })
  await assert.rejects(read(smallZip([{ name: 'a', body: 'text '.repeat(99) }], { method: 8, cut: 3 })), {
    code: 'invalid-image',
    message: /damaged/,
  })
  await assert.rejects(read(smallZip([{ name: 'a', body: 'text '.repeat(99) }], { method: 8, tail: 'xyz' })), {
    code: 'invalid-image',
    message: /something follows/,
  })
})
