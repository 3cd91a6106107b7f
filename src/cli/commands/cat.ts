import { ServiceError } from '../../base/errors.ts'
import { command } from '../command.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { mustFind, openGuestFiles, volumeOption } from '../disk-file/guest-files.ts'
import { withAdvice } from '../disk-file/open-disk.ts'
import { diskOptions, PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import { streamOf, writeStdout } from '../disk-file/stdout-target.ts'
import type { Output } from '../output.ts'
import { Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'

export const cat = command({
  name: 'cat',
  summary: 'Print a file of the disk in an image file, without mounting it',
  description:
    "A program gets the bytes as they are. On a terminal it is text whose control characters are shown as their codes: the disk's author may be anybody.",
  arguments: { file: { help: PLACE, completes: 'file' }, path: { help: 'a file on the disk; links are followed' } },
  options: { ...volumeOption, ...diskOptions, ...spoolOption },
  examples: [
    ['imprint cat debian-12.qcow2 /etc/os-release', 'a text'],
    ['imprint cat debian-12.qcow2 /boot/vmlinuz-6.1.0-18-amd64 > vmlinuz', 'bytes, to a file'],
  ],
  exits: [3],
  async run({ file, path, volume, from, snapshot, parent, part, member, spoolBytes }, { out, signal }) {
    const progress = new Progress(out)
    try {
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const wish = { source: file, from, snapshot, parents: parent, parts: part, member, volume }
      await using files = await openGuestFiles(wish, openFile, onProgress)
      progress.end()
      for (const note of files.notes) out.note(safeText(note))
      const { node, fileSystem } = await mustFind(files.tree, path)
      if (node.kind !== 'file') throw new ServiceError('invalid-request', `"${safeText(path)}" is a ${node.kind} and not a file`)
      const stream = streamOf(await fileSystem.data(node), signal)
      if (process.stdout.isTTY) await showText(stream, out)
      else await writeStdout(stream, () => undefined, { signal, onProgress: () => undefined })
      return 0
    } catch (error) {
      throw withAdvice(endedBy(signal, error))
    } finally {
      progress.end()
    }
  },
})

async function showText(stream: AsyncIterable<Uint8Array>, out: Output): Promise<void> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const piece of stream) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split('\n')
    rest = lines.pop()!
    for (const line of lines) out.line(safeText(line.replaceAll('\t', '        ')))
  }
  if (rest !== '') out.line(safeText(rest))
}
