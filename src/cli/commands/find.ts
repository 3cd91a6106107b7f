import { command } from '../command.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { globExpression } from '../disk-file/glob.ts'
import { listed, mustFind, openGuestFiles, volumeOption } from '../disk-file/guest-files.ts'
import { withAdvice } from '../disk-file/open-disk.ts'
import { diskOptions, PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import { Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'

const kinds = ['file', 'directory', 'symlink', 'device'] as const

export const find = command({
  name: 'find',
  summary: 'Find files on the disk in an image file by their names, without mounting it',
  description:
    'PATTERN is a glob: * and ? within a name, ** over folders, [abc], {a,b}. Without a slash it is held against the last name, with one against the whole path.',
  arguments: {
    file: { help: PLACE, completes: 'file' },
    pattern: { help: 'as *.service, or /etc/**/*.pem' },
  },
  options: {
    below: { type: 'text', value: 'PATH', help: 'in this directory of the disk (default: /)' },
    kind: { type: 'choice', choices: kinds, help: 'these alone' },
    ...volumeOption,
    ...diskOptions,
    ...spoolOption,
  },
  examples: [
    ['imprint find debian-12.qcow2 authorized_keys', 'whose keys an image has'],
    ['imprint find debian-12.qcow2 "/lib/modules/*/kernel/drivers/net/**/*.ko*"', 'its network drivers'],
  ],
  exits: [3],
  async run({ file, pattern, below, kind, volume, from, snapshot, parent, part, member, spoolBytes }, { out, signal }) {
    const progress = new Progress(out)
    try {
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const wish = { source: file, from, snapshot, parents: parent, parts: part, member, volume }
      await using files = await openGuestFiles(wish, openFile, onProgress)
      progress.end()
      for (const note of files.notes) out.note(safeText(note))
      const expression = globExpression(pattern)
      const start = await mustFind(files.tree, below ?? '/')
      const onDamage = (where: string, error: Error) => out.note(safeText(`${where} could not be read: ${error.message}`))
      let count = 0
      for await (const each of files.tree.walk(start.path, { signal, onDamage })) {
        const text = pattern.includes('/') ? each.path : each.path.slice(each.path.lastIndexOf('/') + 1)
        if (!isOfKind(each.node.kind, kind) || !expression.test(text)) continue
        if (out.json) out.raw(`${count === 0 ? '[' : ',\n'}${out.jsonText(await listed(each))}`)
        else out.line(safeText(each.path))
        count += 1
      }
      if (out.json) out.raw(count === 0 ? '[]\n' : ']\n')
      return count === 0 ? 3 : 0
    } catch (error) {
      throw withAdvice(endedBy(signal, error))
    } finally {
      progress.end()
    }
  },
})

function isOfKind(kind: string, wanted: (typeof kinds)[number] | undefined): boolean {
  if (wanted === undefined) return true
  return wanted === 'device' ? kind === 'block' || kind === 'character' : kind === wanted
}
