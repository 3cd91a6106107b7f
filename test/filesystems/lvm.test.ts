import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ServiceError } from '../../src/base/errors.ts'
import { MiB } from '../../src/base/units.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { volumeNamed } from '../../src/disk/guest/system/systems.ts'
import { type LogicalVolume, logicalVolumesOf } from '../../src/disk/guest/volumes/lvm/logical-volumes.ts'
import { readPhysicalVolume } from '../../src/disk/guest/volumes/lvm/metadata.ts'
import { readLayout, type Volume } from '../../src/disk/guest/volumes/volumes.ts'
import { missingTool } from '../peers/command.ts'
import { numbersOf } from './aged-tree.ts'
import { description, linear, logical, PE_START, smallPhysicalVolume } from './small-lvm.ts'

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)
const [A, B] = ['a'.repeat(32), 'b'.repeat(32)]
const EXTENT = 65_536
const noise = new Map<number, Buffer>()
const bytesOf = (seed: number, length: number): Buffer => {
  const random = numbersOf(seed)
  return Buffer.from(Uint8Array.from({ length }, () => random() * 256))
}

/** The volumes of physical ones, with noise in their extents. */
async function volumesOf(...disks: Buffer[]): Promise<LogicalVolume[]> {
  const found = []
  for (const disk of disks) found.push({ physical: (await readPhysicalVolume(bytesSource(disk)))!, source: bytesSource(disk) })
  return logicalVolumesOf(found)
}
function disk(uuid: string, text: string, seed = 1, textOffset?: number): Buffer {
  const made = smallPhysicalVolume({ uuid, text, bytes: 2 * MiB, ...(textOffset === undefined ? {} : { textOffset }) })
  const extents = noise.get(seed) ?? bytesOf(seed, 15 * EXTENT)
  noise.set(seed, extents)
  extents.copy(made, PE_START * 512)
  return made
}
async function contentOf({ source }: LogicalVolume): Promise<Buffer> {
  if (source instanceof ServiceError) throw source
  return Buffer.from(await source.read(0, source.size))
}

test('volumes in a row, in pieces and in stripes have the bytes of their extents', async () => {
  const stripes = (start: number, count: number) =>
    `start_extent = ${start} extent_count = ${count} type = "striped" stripe_count = 2 stripe_size = 16 stripes = ["pv0", 6, "pv1", 2]`
  const text = description(
    [A, B],
    [
      logical('row', [linear(0, 2, '"pv0", 1')]),
      logical('pieces', [linear(0, 1, '"pv1", 14'), linear(1, 2, '"pv0", 3'), 'start_extent = 3 extent_count = 1 type = "zero"']),
      logical('stripes', [linear(0, 1, '"pv0", 5'), stripes(1, 4)]),
      logical('hidden', [linear(0, 1)], '"READ"'),
    ].join('\n'),
  )
  const [first, second] = [disk(A, text, 1), disk(B, text, 2)]
  const extent = (from: Buffer, index: number) =>
    from.subarray(PE_START * 512 + index * EXTENT, PE_START * 512 + (index + 1) * EXTENT)
  const turns = Array.from({ length: 32 }, (_, chunk) => {
    const [from, begin] = chunk % 2 === 0 ? ([first, 6] as const) : ([second, 2] as const)
    const at = PE_START * 512 + begin * EXTENT + Math.floor(chunk / 2) * 8192
    return from.subarray(at, at + 8192)
  })
  const [row, pieces, striped, ...others] = await volumesOf(first, second)
  assert.deepEqual([row!.name, pieces!.name, striped!.name, others.length], ['vg/row', 'vg/pieces', 'vg/stripes', 0])
  assert.ok((await contentOf(row!)).equals(Buffer.concat([extent(first, 1), extent(first, 2)])))
  assert.ok(
    (await contentOf(pieces!)).equals(
      Buffer.concat([extent(second, 14), extent(first, 3), extent(first, 4), Buffer.alloc(EXTENT)]),
    ),
  )
  const whole = await contentOf(striped!)
  assert.ok(whole.equals(Buffer.concat([extent(first, 5), ...turns])))
  assert.ok(!(striped!.source instanceof ServiceError))
  for (const [offset, length] of [
    [EXTENT - 1, 2],
    [EXTENT + 8190, 20_000],
    [5 * EXTENT - 1, 1],
  ] as const) {
    assert.ok(whole.subarray(offset, offset + length).equals(await striped!.source.read(offset, length)))
  }
})

test('the text goes round the end of its area, and the newest holds', async () => {
  const old = disk(A, description([A, B], logical('old', [linear(0, 1)]), 3))
  const recent = disk(B, description([A, B], logical('new', [linear(0, 1)]), 4), 2, 1024 * 1024 - 4096 - 300)
  assert.deepEqual(
    (await volumesOf(old, recent)).map(({ name }) => name),
    ['vg/new'],
  )
  assert.deepEqual(
    (await volumesOf(recent, old)).map(({ name }) => name),
    ['vg/new'],
  )
})

const refused: readonly { readonly name: string; readonly volume: string; readonly says: RegExp; readonly code?: string }[] = [
  {
    name: 'on a volume that is missing',
    volume: logical('x', [linear(0, 1, '"pv1", 0')]),
    says: /vg\/x: .*bbbbbb-bbbb.* missing/,
    code: 'unsupported',
  },
  {
    name: 'of thin provisioning',
    volume: logical('x', ['start_extent = 0 extent_count = 1 type = "thin" thin_pool = "p"']),
    says: /type thin/,
    code: 'unsupported',
  },
  ...['raid1', 'raid5', 'mirror', 'cache', 'thin-pool', 'vdo', 'writecache', 'error'].map((type) => ({
    name: `of type ${type}`,
    volume: logical('x', [`start_extent = 0 extent_count = 1 type = "${type}"`]),
    says: new RegExp(`type ${type}`),
    code: 'unsupported',
  })),
  { name: 'on itself', volume: logical('x', [linear(0, 1, '"x", 0')]), says: /lies on x/, code: 'unsupported' },
  {
    name: 'of 2^32 stripes',
    volume: logical('x', ['start_extent = 0 extent_count = 1 type = "striped" stripe_count = 4294967296 stripes = ["pv0", 0]']),
    says: /stripe_count/,
  },
  {
    name: 'of no stripes',
    volume: logical('x', ['start_extent = 0 extent_count = 1 type = "striped" stripe_count = 0 stripes = []']),
    says: /stripe_count/,
  },
  {
    name: 'with fewer stripes than it says',
    volume: logical('x', [
      'start_extent = 0 extent_count = 2 type = "striped" stripe_count = 2 stripe_size = 16 stripes = ["pv0", 0]',
    ]),
    says: /stripes/,
  },
  {
    name: 'in turns of nothing',
    volume: logical('x', [
      'start_extent = 0 extent_count = 2 type = "striped" stripe_count = 2 stripe_size = 0 stripes = ["pv0", 0, "pv0", 4]',
    ]),
    says: /each turn/,
  },
  { name: 'of extents beyond the last', volume: logical('x', [linear(0, 1, '"pv0", 15')]), says: /outside pv0/ },
  { name: 'of an extent that is no number', volume: logical('x', [linear(0, 1, '"pv0", "1"')]), says: /numbers/ },
  { name: 'of 2^53 extents', volume: logical('x', [linear(0, 9007199254740991)]), says: /segment1/ },
  { name: 'with segments that overlap', volume: logical('x', [linear(0, 2), linear(1, 1)]), says: /segment2/ },
  {
    name: 'with fewer segments than it says',
    volume: logical('x', [linear(0, 1)]).replace('segment_count = 1', 'segment_count = 2'),
    says: /segment2/,
  },
  {
    name: 'of 2^31 segments',
    volume: logical('x', [linear(0, 1)]).replace('segment_count = 1', 'segment_count = 2147483648'),
    says: /segment_count/,
  },
  {
    name: 'that is a snapshot',
    volume: `${logical('x', [linear(0, 1)])} ${logical('snapshot0', ['type = "snapshot" origin = "y" cow_store = "x"'], '"READ"')}`,
    says: /a snapshot/,
    code: 'unsupported',
  },
]
for (const { name, volume, says, code = 'invalid-image' } of refused) {
  test(`a volume ${name} is refused, and the others are not`, async () => {
    const all = await volumesOf(disk(A, description([A, B], `${volume} ${logical('whole', [linear(0, 1)])}`)))
    const [bad, whole] = [all.find((each) => each.name === 'vg/x')!, all.find((each) => each.name === 'vg/whole')!]
    assert.ok(bad.source instanceof ServiceError, 'it is read')
    assert.equal(bad.source.code, code)
    assert.match(bad.source.message, says)
    assert.equal((await contentOf(whole)).length, EXTENT)
  })
}

const texts: readonly { readonly name: string; readonly text: string; readonly says: RegExp }[] = [
  { name: '100,000 sections in one another', text: 'a {'.repeat(100_000), says: /more than 8/ },
  { name: 'a section that does not end', text: 'vg { seqno = 1', says: /ends in a section/ },
  { name: 'a string that does not end', text: 'vg = "', says: /no word/ },
  { name: 'a string of backslashes', text: `vg = "${'\\'.repeat(999_999)}`, says: /no word/ },
  { name: 'one } too many', text: '}', says: /too many/ },
  { name: 'a name twice', text: 'a = 1 a = 2', says: /not there yet/ },
  { name: 'an array of a million', text: `a = [${'1,'.repeat(400_000)}]`, says: /more than 50000/ },
  {
    name: 'a hundred thousand names',
    text: Array.from({ length: 100_000 }, (_, index) => `a${index}=1\n`)
      .join('')
      .slice(0, 900_000),
    says: /more than 50000/,
  },
  { name: 'a value that is none', text: 'a = {', says: /value/ },
  { name: 'bytes that are no text', text: '\u0001', says: /no word/ },
]
for (const { name, text, says } of texts) {
  test(`a description with ${name} is refused`, async () => {
    const { problem } = (await readPhysicalVolume(bytesSource(disk(A, text))))!
    assert.equal(problem?.code, 'invalid-image')
    assert.match(problem.message, says)
    assert.equal((await readLayout(bytesSource(disk(A, text)))).volumes[0]!.content.kind, 'damaged')
  })
}

test('a description of comments alone describes nothing', async () => {
  assert.deepEqual(await volumesOf(disk(A, '#\n'.repeat(400_000))), [])
})

test('labels and areas that lie are damage, and no fault', async () => {
  const good = disk(A, description([A], logical('x', [linear(0, 1)])))
  for (const [at, value] of [
    [512 + 8, 3],
    [512 + 20, 500],
    [512 + 16, 0],
    [512 + 104, 9],
    [512 + 110, 255],
    [4096 + 32, 255],
    [4096 + 40, 1],
    [4096 + 50, 255],
    [4096 + 56, 0],
    [4096 + 600, 0],
  ] as const) {
    const bad = Buffer.from(good)
    bad[at] = value
    const [whole, ...others] = (await readLayout(bytesSource(bad))).volumes
    assert.equal(whole!.content.kind, 'damaged', `byte ${at}`)
    assert.equal(others.length, 0)
  }
})

test('whatever a description says, volumes or typed errors', async () => {
  const random = numbersOf(7)
  const below = (end: number) => Math.floor(random() * end)
  const stripes =
    'start_extent = 0 extent_count = 4 type = "striped" stripe_count = 2 stripe_size = 16 stripes = ["pv0", 6, "pv1", 2]'
  const text = description([A, B], logical('row', [linear(0, 2), linear(2, 1, '"pv1", 3')]) + logical('stripes', [stripes]))
  const other = smallPhysicalVolume({ uuid: B, text: '', bytes: 2 * MiB })
  const words = [
    '0',
    '1',
    '2',
    '4294967296',
    '9007199254740992',
    '-1',
    '{',
    '}',
    '[',
    ']',
    '=',
    '"',
    '\\',
    '#',
    'pv1',
    'striped',
    '\0',
    '',
  ]
  for (let run = 0; run < RUNS; run += 1) {
    let changed = text
    for (let count = 1 + below(4); count > 0; count -= 1) {
      const at = below(changed.length)
      changed = changed.slice(0, at) + words[below(words.length)] + changed.slice(at + below(4))
    }
    for (const { source } of await volumesOf(smallPhysicalVolume({ uuid: A, text: changed, bytes: 2 * MiB }), other)) {
      if (source instanceof ServiceError) continue
      const bytes = Math.min(source.size, 1000)
      await source.read(0, bytes)
      await source.read(source.size - bytes, bytes)
    }
  }
})

interface Placed {
  readonly lv_name: string
  readonly seg_start: string
  readonly seg_size: string
  readonly stripe_size: string
  readonly seg_pe_ranges: string
}

test('a disk that LVM made has the volumes that LVM says, with their files', { skip: notAsRoot() }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-lvm-'))
  const run = (program: string, ...words: string[]) =>
    execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env })
  const paths = [join(folder, 'a'), join(folder, 'b')]
  const loops: string[] = []
  try {
    for (const [index, path] of paths.entries()) {
      await writeFile(path, bytesOf(index, 1024))
      await truncate(path, 64 * MiB)
      loops.push(run('losetup', '-f', '--show', path).trim())
    }
    const filter = loops.map((loop) => `"a|^${loop}$|"`).join(',')
    const config = `devices{filter=[${filter},"r|.*|"] use_devicesfile=0} backup{backup=0 archive=0} activation{monitoring=0}`
    const lvm = (command: string, ...words: string[]) => run(command, '--config', config, '--driverloaded', 'n', ...words)
    lvm('vgcreate', '-s', '1m', 'vg-0', ...loops)
    const make = (...words: string[]) => lvm('lvcreate', '-an', '-Zn', '-Wn', 'vg-0', ...words)
    make('-l', '12', '-n', 'one')
    make('-l', '24', '-i', '2', '-I', '16k', '-n', 'stripes')
    make('-l', '3', '-n', 'between', loops[0]!)
    lvm('lvextend', '-l', '+12', 'vg-0/one')
    const report = JSON.parse(
      lvm(
        'lvs',
        '--segments',
        '-o',
        'lv_name,seg_start,seg_size,stripe_size,seg_pe_ranges',
        '--units',
        'b',
        '--nosuffix',
        '--reportformat',
        'json',
      ),
    )
    for (const loop of loops.splice(0)) run('losetup', '-d', loop)
    const placed: Placed[] = report.report[0].seg
    for (const name of ['one', 'stripes'])
      await writeVolume(
        paths,
        placed.filter((each) => each.lv_name === name),
        await fileSystem(folder, name, run),
      )
    const whole = await partitioned(folder, paths, run)

    const { volumes } = await readLayout(bytesSource(whole))
    const shown = ({ name, content }: Volume) => [name, content.kind === 'other' ? content.type : content.kind]
    assert.deepEqual(volumes.map(shown), [
      ['partition 1', 'LVM2_member'],
      ['partition 2', 'LVM2_member'],
      ['vg-0/one', 'files'],
      ['vg-0/stripes', 'files'],
      ['vg-0/between', 'unknown'],
    ])
    for (const name of ['one', 'stripes']) {
      const { content } = volumes.find((each) => each.name === `vg-0/${name}`)!
      assert.ok(content.kind === 'files')
      assert.equal(content.files.label, name)
      const read = await new FileTree(content.files).read('/file', 8 * MiB)
      assert.ok(bytesOf(name.length, 3 * MiB).equals(read!))
    }
    assert.equal(volumeNamed('/dev/mapper/vg--0-stripes', volumes)?.name, 'vg-0/stripes')
    assert.equal(volumeNamed('/dev/vg-0/one', volumes)?.name, 'vg-0/one')

    whole.fill(0, 66 * MiB, 67 * MiB) // the label and the description of the second
    const left = (await readLayout(bytesSource(whole))).volumes
    assert.deepEqual(left.map(shown).slice(2), [
      ['vg-0/one', 'files'],
      ['vg-0/stripes', 'damaged'],
      ['vg-0/between', 'unknown'],
    ])
    const { content } = left.find(({ name }) => name === 'vg-0/stripes')!
    assert.match(content.kind === 'damaged' ? content.error.message : '', /vg-0\/stripes: .* missing/)
  } finally {
    for (const loop of loops) run('losetup', '-d', loop)
    await rm(folder, { recursive: true })
  }
})

type Run = (program: string, ...words: string[]) => string
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LVM_SUPPRESS_FD_WARNINGS: '1' }

function notAsRoot(): string | false {
  return process.getuid?.() === 0 ? missingTool('vgcreate', 'lvcreate', 'losetup', 'mke2fs', 'sfdisk') : 'loop devices need root'
}

async function fileSystem(folder: string, name: string, run: Run): Promise<Buffer> {
  const [content, path] = [join(folder, `${name}.files`), join(folder, `${name}.ext4`)]
  run('mkdir', content)
  await writeFile(join(content, 'file'), bytesOf(name.length, 3 * MiB))
  run('mke2fs', '-q', '-t', 'ext4', '-L', name, '-d', content, path, '24M')
  return readFile(path)
}

/** Byte by byte where LVM's own report says that it is: `/dev/loop0:0-11 /dev/loop1:0-11`, extents of 1 MiB from 1 MiB on. */
async function writeVolume(paths: readonly string[], segments: readonly Placed[], bytes: Buffer): Promise<void> {
  const files = await Promise.all(paths.map((path) => open(path, 'r+')))
  const devices = [
    ...new Set(
      segments.flatMap(({ seg_pe_ranges: ranges }) => [...ranges.matchAll(/(\/dev\/\w+):/g)].map(([, device]) => device)),
    ),
  ].sort()
  for (const { seg_start: start, seg_size: size, stripe_size: chunk, seg_pe_ranges: ranges } of segments) {
    const stripes = [...ranges.matchAll(/(\/dev\/\w+):(\d+)-\d+/g)].map(
      ([, device, extent]) => [devices.indexOf(device), Number(extent)] as const,
    )
    const step = stripes.length === 1 ? Number(size) : Number(chunk)
    for (let at = 0, turn = 0; at < Number(size); at += step, turn += 1) {
      const [index, extent] = stripes[turn % stripes.length]!
      const offset = MiB + extent * MiB + Math.floor(turn / stripes.length) * step
      await files[index]!.write(bytes, Number(start) + at, step, offset)
    }
  }
  for (const file of files) await file.close()
}

async function partitioned(folder: string, paths: readonly string[], run: Run): Promise<Buffer> {
  const path = join(folder, 'disk')
  await writeFile(path, '')
  await truncate(path, 134 * MiB)
  execFileSync('sfdisk', ['-q', path], {
    input: 'label: gpt\nstart=1MiB, size=64MiB, type=V\nstart=66MiB, size=64MiB, type=V\n',
    env,
  })
  for (const [index, from] of paths.entries())
    run('dd', `if=${from}`, `of=${path}`, 'bs=1M', `seek=${1 + index * 65}`, 'conv=notrunc', 'status=none')
  return readFile(path)
}
