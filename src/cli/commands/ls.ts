import type { FileTree, Found } from '../../disk/guest/filesystems/file-tree.ts'
import { command } from '../command.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { type ListedFile, listed, modeText, mustFind, openGuestFiles, volumeOption } from '../disk-file/guest-files.ts'
import { withAdvice } from '../disk-file/open-disk.ts'
import { diskOptions, PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import type { Output } from '../output.ts'
import { Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'

export const ls = command({
  name: 'ls',
  summary: 'List the files on the disk in an image file, without mounting it',
  description: [
    'Paths are those that the system on the disk sees: /boot is there also where it is a partition of its own. A link at the end of PATH is followed.',
    "Owners are numbers: names are a matter of the disk's own /etc/passwd.",
  ].join('\n'),
  arguments: {
    file: { help: PLACE, completes: 'file' },
    path: { help: 'a directory or a file on the disk (default: /)', optional: true },
  },
  options: {
    recursive: { type: 'flag', help: 'everything below PATH' },
    ...volumeOption,
    ...diskOptions,
    ...spoolOption,
  },
  examples: [
    ['imprint ls debian-12.qcow2 /etc', 'a directory'],
    ['imprint ls debian-12.qcow2 /boot --recursive --json', 'for programs'],
    ['imprint ls disk.vmdk --volume "partition 1"', 'a partition alone'],
  ],
  exits: [3],
  async run({ file, path = '/', recursive, volume, from, snapshot, parent, part, member, spoolBytes }, { out, signal }) {
    const progress = new Progress(out)
    try {
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const wish = { source: file, from, snapshot, parents: parent, parts: part, member, volume }
      await using files = await openGuestFiles(wish, openFile, onProgress)
      progress.end()
      for (const note of files.notes) out.note(safeText(note))
      await print(found(files.tree, path, recursive, out, signal), out)
      return 0
    } catch (error) {
      throw withAdvice(endedBy(signal, error))
    } finally {
      progress.end()
    }
  },
})

async function* found(tree: FileTree, path: string, recursive: boolean, out: Output, signal: AbortSignal): AsyncGenerator<Found> {
  const start = await mustFind(tree, path)
  if (start.node.kind !== 'directory') {
    yield start
    return
  }
  const onDamage = (where: string, error: Error) => out.note(safeText(`${where} could not be read: ${error.message}`))
  const prune = (where: string) => !recursive && where !== start.path
  for await (const each of tree.walk(start.path, { signal, onDamage, prune })) if (each.path !== start.path) yield each
}

/** As they are found: a disk may have millions. */
async function print(all: AsyncIterable<Found>, out: Output): Promise<void> {
  let before = '['
  for await (const each of all) {
    const facts = await listed(each)
    if (out.json) {
      out.raw(`${before}${out.jsonText(facts)}`)
      before = ',\n'
    } else out.line(lineOf(each, facts, out))
  }
  if (out.json) out.raw(`${before === '[' ? '[' : ''}]\n`)
}

function lineOf({ node }: Found, { path, uid, gid, bytes, modified, target }: ListedFile, out: Output): string {
  const size = node.device ? `${node.device.major}, ${node.device.minor}` : String(bytes)
  const when = modified === null ? '–'.padEnd(16) : modified.slice(0, 16).replace('T', ' ')
  const facts = `${modeText(node)} ${String(uid).padStart(5)} ${String(gid).padStart(5)} ${size.padStart(12)} ${when}`
  const name = out.tone(safeText(path), node.kind === 'directory' ? 'strong' : 'plain')
  return `${out.tone(facts, 'dim')}  ${name}${target === null ? '' : out.tone(` → ${safeText(target)}`, 'dim')}`
}
