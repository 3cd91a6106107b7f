import { formatBytes } from '../../base/units.ts'
import type { Extent } from '../../disk/block/block-source.ts'
import { merged } from '../../disk/block/run-merger.ts'
import { command } from '../command.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { openDisk, withAdvice } from '../disk-file/open-disk.ts'
import { diskOptions, PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import type { Output } from '../output.ts'
import { Progress, type TransferState } from '../progress.ts'

export const map = command({
  name: 'map',
  summary: 'List where the disk in a file has data, zeros and holes',
  description: [
    'With --json it is the list that `qemu-img map --output=json` prints, without depth and places in the file: start and length in',
    'bytes; present: this is recorded in the file; zero: it reads as zeros; data: there are bytes for it.',
  ].join('\n'),
  arguments: { file: { help: PLACE, completes: 'file' } },
  options: {
    ...diskOptions,
    ...spoolOption,
  },
  examples: [
    ['imprint map disk.qcow2', 'for people'],
    ['imprint map disk.qcow2 --json', 'for programs'],
  ],
  exits: [3],
  async run({ file, from, snapshot, parent, part, member, spoolBytes }, { out, signal }) {
    const progress = new Progress(out)
    try {
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const wish = { source: file, from, snapshot, parents: parent, parts: part, member }
      const { disk, format } = await openDisk(wish, openFile, onProgress)
      progress.end()
      await using _ = { [Symbol.asyncDispose]: () => disk.close() }
      const isRecorded = format === 'raw' // all of a raw file is: its holes are its zeros
      const extents = merged(disk.extents(0, disk.size))
      if (out.json) await printJson(extents, isRecorded, out, signal)
      else await print(extents, out, signal)
      return 0
    } catch (error) {
      throw withAdvice(endedBy(signal, error))
    } finally {
      progress.end()
    }
  },
})

/** Written as it is found: a disk may be in millions of pieces. */
async function printJson(extents: AsyncIterable<Extent>, isRecorded: boolean, out: Output, signal: AbortSignal): Promise<void> {
  let before = '['
  for await (const { offset, length, kind } of extents) {
    signal.throwIfAborted()
    const data = kind === 'data'
    const run = { start: offset, length, present: isRecorded || kind !== 'hole', zero: !data, data }
    out.raw(`${before}${JSON.stringify(run)}`)
    before = ',\n'
  }
  out.raw(`${before === '[' ? '[' : ''}]\n`)
}

async function print(extents: AsyncIterable<Extent>, out: Output, signal: AbortSignal): Promise<void> {
  const columns = (texts: readonly string[]) => texts.map((text, at) => text.padStart([18, 18, 9][at] ?? 0)).join('  ')
  out.line(out.tone(`${columns(['start', 'length', ''])}  what`, 'dim'))
  const totals = { data: 0, zero: 0, hole: 0 }
  for await (const { offset, length, kind } of extents) {
    signal.throwIfAborted()
    totals[kind] += length
    out.line(
      `${columns([String(offset), String(length), formatBytes(length)])}  ${out.tone(kind, kind === 'data' ? 'strong' : 'dim')}`,
    )
  }
  const sums = Object.entries(totals).filter(([, bytes]) => bytes > 0)
  out.note(sums.map(([kind, bytes]) => `${kind} ${formatBytes(bytes)}`).join(', '))
}
