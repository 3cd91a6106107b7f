/** Files that nobody means harm by: made by qemu-img in all ways that it has, by our own writers, and by those who make file systems. */
import assert from 'node:assert/strict'
import { createWriteStream } from 'node:fs'
import { copyFile, mkdir, rm, truncate } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import { diskFormats, formatNamed, formats, openImage, recognise, writerOf } from '../../src/disk/formats/index.ts'
import { examination } from '../../src/images/examine/examination.ts'
import { randomDisk, writeSource } from '../fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'

const MiB = 1024 * 1024
const LEAST = 200
/** Where QEMU has another name than Glance. */
const qemuNames: Readonly<Record<string, string>> = { vhd: 'vpc', ploop: 'parallels' }

/** Taken by the service; a format that it has no name for, by what opens local files. */
async function assertTaken(format: string, path: string, what: string): Promise<void> {
  const file = await openFileSource(path)
  try {
    if ((diskFormats as readonly string[]).includes(format)) await examination(file, format)
    else {
      assert.deepEqual(
        (await recognise(file)).found.map(({ name }) => name),
        [format],
      )
      await formatNamed(format).audit(file)
      await openImage(format, { ...file, close: async () => {} })
    }
  } catch (error) {
    assert.fail(`${what} was refused: ${error}`)
  } finally {
    await file.close()
  }
}

/** Every combination of one choice of each. */
function* combinations(choices: Readonly<Record<string, readonly string[]>>): Generator<string> {
  const [first, ...rest] = Object.entries(choices)
  if (!first) return yield ''
  for (const value of first[1]) {
    for (const more of combinations(Object.fromEntries(rest))) {
      const own = value === '' ? '' : `${first[0]}=${value}`
      yield [own, more].filter((each) => each !== '').join(',')
    }
  }
}

const ways: readonly {
  readonly format: string
  readonly choices: Readonly<Record<string, readonly string[]>>
  readonly flags?: string
}[] = [
  {
    format: 'qcow2',
    choices: { cluster_size: ['512', '4k', '', '256k', '2M'], refcount_bits: ['1', '2', '4', '8', '', '32', '64'] },
  },
  { format: 'qcow2', choices: { cluster_size: ['512', '', '2M'], compat: ['0.10'], preallocation: ['', 'metadata'] } },
  { format: 'qcow2', choices: { preallocation: ['metadata', 'falloc', 'full'], lazy_refcounts: ['on', 'off'] } },
  { format: 'qcow2', choices: { extended_l2: ['on'], cluster_size: ['16k', '', '1M'], preallocation: ['', 'metadata'] } },
  { format: 'qcow2', choices: { compression_type: ['zlib', 'zstd'], cluster_size: ['4k', '', '2M'] }, flags: '-c' },
  {
    format: 'vmdk',
    choices: { subformat: ['', 'streamOptimized'], adapter_type: ['', 'lsilogic', 'buslogic', 'legacyESX'], compat6: ['', 'on'] },
  },
  { format: 'vmdk', choices: { zeroed_grain: ['on'], hwversion: ['', '13'] } },
  { format: 'vhd', choices: { subformat: ['', 'fixed'], force_size: ['', 'on'] } },
  {
    format: 'vhdx',
    choices: {
      subformat: ['', 'fixed'],
      block_size: ['', '1M', '8M', '256M'],
      log_size: ['', '4M'],
      block_state_zero: ['', 'off'],
    },
  },
  { format: 'vdi', choices: { static: ['', 'on'] } },
  { format: 'qed', choices: { cluster_size: ['4k', '', '1M'], table_size: ['2', '', '16'] } },
  { format: 'ploop', choices: { cluster_size: ['64k', '', '4M'] } },
]
const disks = [
  ['of nothing', randomDisk(4 * MiB, 0, 1)],
  ['of some data', randomDisk(5 * MiB + 512, 6, 2)],
] as const

test(`no honest file is refused: more than ${LEAST} of them`, { skip: lacking('qemu-img') }, async (t) => {
  const path = await scratch(t)
  let count = 0
  const taken = async (format: string, what: string) => {
    await assertTaken(format, path('file'), what)
    await rm(path('file'))
    count += 1
  }
  for (const [content, disk] of disks) {
    await writeSource(disk, path('raw'))
    await copyFile(path('raw'), path('file'))
    await taken('raw', content)
    for (const { format, choices, flags } of ways) {
      for (const options of combinations(choices)) {
        const how = [...(flags ? [flags] : []), ...(options === '' ? [] : ['-o', options])]
        await run('qemu-img', 'convert', '-f', 'raw', '-O', qemuNames[format] ?? format, ...how, path('raw'), path('file'))
        await taken(format, `${format} ${options} ${content} by qemu-img`)
      }
    }
    for (const { name, writers } of formats) {
      for (const { subformat } of writers) {
        const writer = writerOf(name, subformat)
        if ('wrap' in writer) await writeSource(await writer.wrap(disk), path('file'))
        else await pipeline(Readable.from(writer.pack(disk)), createWriteStream(path('file')))
        await taken(name, `${name} (${subformat}) ${content} by us`)
      }
    }
  }
  t.diagnostic(`${count} honest files`)
  assert.ok(count > LEAST, `${count} files`)
})

type Path = (name: string) => string
/** @param fill writes to `path('file')`, which is a file of so many bytes without data */
const made = (what: string, tool: string, bytes: number, fill: (path: Path) => Promise<unknown>, format = 'raw') =>
  test(`no honest file is refused: ${what}`, { skip: lacking(tool) }, async (t: TestContext) => {
    const path = await scratch(t)
    await writeSource(randomDisk(512, 0, 1), path('file'))
    await truncate(path('file'), bytes)
    await fill(path)
    await assertTaken(format, path('file'), what)
  })

for (const [tool, bytes, ...options] of [
  ['mkfs.ext2', 8 * MiB, '-q', '-F'],
  ['mkfs.ext4', 16 * MiB, '-q', '-F'],
  ['mkfs.xfs', 400 * MiB, '-q', '-f'],
  ['mkfs.btrfs', 200 * MiB, '-q', '-f'],
  ['mkfs.vfat', 8 * MiB],
  ['mkfs.vfat', 64 * MiB, '-F', '32'],
  ['mkfs.ntfs', 16 * MiB, '-q', '-F', '-f'],
  ['mkfs.exfat', 16 * MiB],
  ['mkswap', 8 * MiB, '-q'],
] as const) {
  made(`${[tool, ...options].join(' ')} on all of a disk`, tool, bytes, (path) => run(tool, ...options, path('file')))
}
made('a partition table of GUIDs', 'sgdisk', 16 * MiB, (path) =>
  run('sgdisk', '-n', '1:2048:4095', '-t', '1:ef00', '-n', '2:4096:0', path('file')),
)
made('a partition table of a PC', 'sfdisk', 16 * MiB, (path) =>
  run('sh', '-c', 'printf "2048,4096,0c,*\\n8192,,83\\n" | "$0" -q "$1"', 'sfdisk', path('file')),
)
made('a disk that LUKS 2 encrypts', 'cryptsetup', 20 * MiB, (path) =>
  run(
    'sh',
    '-c',
    'echo secret | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$0" -',
    path('file'),
  ),
)
for (const [what, options] of [
  ['an ISO 9660 with Rock Ridge and Joliet', ['-r', '-J']],
  ['an ISO 9660 alone', []],
] as const) {
  made(
    what,
    'genisoimage',
    512,
    async (path) => {
      await mkdir(path('tree'))
      await copyFile(path('file'), path('tree/a file'))
      await run('genisoimage', '-quiet', ...options, '-o', path('file'), path('tree'))
    },
    'iso',
  )
}
made(
  'an ISO 9660 that starts from a stick as well',
  'xorriso',
  512,
  async (path) => {
    await mkdir(path('tree'))
    await copyFile(path('file'), path('tree/boot.img'))
    const hybrid = ['-isohybrid-mbr', path('tree/boot.img'), '-partition_offset', '16']
    await run(
      'xorriso',
      '-as',
      'mkisofs',
      '-quiet',
      '-r',
      '-b',
      'boot.img',
      '-no-emul-boot',
      ...hybrid,
      '-o',
      path('file'),
      path('tree'),
    )
  },
  'iso',
)
