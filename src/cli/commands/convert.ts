import { basename, resolve } from 'node:path'
import { formatBytes } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { type Inside, plainMachine, sameMachine } from '../../disk/containers/index.ts'
import { command } from '../command.ts'
import { convertDisk, endedBy } from '../disk-file/convert-file.ts'
import { type Wanted, wantedFormat } from '../disk-file/format-words.ts'
import { layersText } from '../disk-file/look-into.ts'
import { openDisk, withAdvice } from '../disk-file/open-disk.ts'
import { diskOptions, isNear, PLACE, placesOf, spoolLimit, spoolOption } from '../disk-file/open-file.ts'
import { type OvaWish, ovaWriter } from '../disk-file/ova-writer.ts'
import { UsageError } from '../exit-codes.ts'
import { formatDuration, Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'

export const convert = command({
  name: 'convert',
  summary: 'Make of a disk image a file in another format, on this machine alone',
  description: [
    'The format of SOURCE is found by itself, compression and archives around it are taken off (gzip, bzip2, xz, zstd, tar, zip, OVA),',
    'and all of its tables are looked at first. What it says of other files is never followed:',
    'give what it is a difference to with --parent, and its other files with --part. TARGET is there when it is whole and on the disk,',
    'and not at all else, however the command ends. Holes stay holes, and zeros become holes. The same disk gives the same bytes.',
  ].join('\n'),
  arguments: {
    source: { help: PLACE, completes: 'file' },
    target: { help: 'a file that is not there yet; - for standard output', completes: 'file' },
  },
  options: {
    to: {
      type: 'text',
      value: 'FORMAT[:FORM]',
      help: 'as qcow2, vmdk:streamOptimized, vhd:fixed, ova; a wrong word is answered by the list (default: by the name of TARGET)',
    },
    ...diskOptions,
    force: { type: 'flag', help: 'replace TARGET if it exists' },
    ...spoolOption,
    findZeros: {
      type: 'choice',
      choices: ['always', 'never'],
      help: 'read all data first, so that what is zeros takes no place in the format (default: where SOURCE has no holes)',
    },
    noSync: { type: 'flag', help: 'do not wait until TARGET is on the disk: the system writes it there later' },
  },
  examples: [
    ['imprint convert debian-12.qcow2 debian-12.raw', 'formats by the names'],
    ['imprint convert disk.raw disk.img --to qcow2', 'format by word'],
    ['imprint convert today.qcow2 whole.qcow2 --parent yesterday.qcow2', 'a difference and what it is based on'],
    ['imprint convert https://example.org/debian-12.qcow2 debian-12.raw', 'from the web, only what is needed'],
    ['imprint convert appliance.ova disk.qcow2', 'out of a package'],
    ['imprint convert disks.tar.xz data.vhdx --member data.raw', 'one of several'],
    ['imprint convert debian-12.qcow2 debian-12.ova', 'a package that VMware and VirtualBox take'],
    ['curl -s https://example.org/disk.raw.zst | imprint convert - disk.qcow2', 'from another program'],
    ['imprint convert disk.qcow2 - --to raw | zstd > disk.raw.zst', 'to another program'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ source, target, to, from, snapshot, parent, part, member, force, findZeros, noSync, spoolBytes }, { out, signal }) {
    const wanted = wantedFormat(to, target)
    if (target === '-' && process.stdout.isTTY)
      throw new UsageError('standard output is a terminal: send it to a file or a program')
    const progress = new Progress(out)
    const started = performance.now()
    await using opened = new AsyncDisposableStack()
    opened.defer(() => progress.end())
    try {
      const wish = { source, from, snapshot, parents: parent, parts: part, member }
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const { disk, format, notes, inside } = await openDisk(wish, openFile, onProgress)
      opened.defer(() => disk.close())
      progress.end()
      const { layers } = inside
      if (layers.length > 0) out.note(`Found ${safeText(layersText(layers, format))}.`)
      for (const note of notes) out.note(safeText(note))
      const written = await convertDisk({
        disk,
        wanted: packagedAs(wanted, target, inside, { maxBytes: spoolLimit(spoolBytes), signal, onProgress }),
        path: target === '-' ? null : resolve(target),
        force,
        isSearched: wanted.format !== 'raw' && (await isSearched(disk, source, findZeros)),
        isSynced: !noSync,
        signal,
        onProgress,
      })
      progress.end()
      const { subformat } = wanted.writer
      const answer = {
        source: { format, layers },
        target: { file: target, format: wanted.format, subformat },
        diskBytes: disk.size,
        ...written,
        notes,
      }
      const ms = performance.now() - started
      const said = `${formatBytes(disk.size)} of disk, ${formatBytes(written.dataBytes)} of data in a ${wanted.format} file of ${formatBytes(written.fileBytes)}, in ${formatDuration(ms)}.`
      if (target !== '-') out.result(answer, () => out.line(`Wrote ${safeText(target)}: ${said}`))
      else if (out.json) out.event(answer)
      else out.note(`Wrote ${said}`)
      return 0
    } catch (error) {
      throw withAdvice(endedBy(signal, error))
    }
  },
})

/** Of an OVA: the machine is that of the package that the disk comes from, or a plain one, and has the name of the file. */
function packagedAs(
  wanted: Wanted,
  target: string,
  { appliance }: Inside,
  how: Pick<OvaWish, 'maxBytes' | 'signal' | 'onProgress'>,
): Wanted {
  const { format, writer } = wanted
  if (format !== 'ova' || !('pack' in writer)) return wanted
  const name = target === '-' ? 'disk' : basename(target).replace(/\.ova$/i, '')
  const machine = appliance ? sameMachine(appliance.descriptor) : plainMachine
  return { format, writer: ovaWriter(writer, { ...how, name, machine }) }
}

/** Who leaves holes has left out the zeros; what is far is not read twice. */
async function isSearched(disk: BlockSource, source: string, wish: 'always' | 'never' | undefined): Promise<boolean> {
  if (wish !== undefined) return wish === 'always'
  if (!isNear(source)) return false
  for await (const { kind, length } of disk.extents(0, disk.size)) return kind === 'data' && length === disk.size
  return false
}
