import { formatBytes } from '../../base/units.ts'
import { command } from '../command.ts'
import { firstDifference } from '../disk-file/compare-disks.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { type DiskWish, openDisk, withAdvice } from '../disk-file/open-disk.ts'
import { PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import { Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'

const GIVE =
  'Or give what it is a difference to with --parent-a or --parent-b, its other files with --part-a or --part-b: nothing that it names is opened.'

export const compare = command({
  name: 'compare',
  summary: 'Say whether two files hold the same disk, whatever their formats',
  description: [
    'What a machine would read is compared. A disk that is longer by zeros only is the same, unless --strict. Status 1 says that they',
    'differ, and where first; or, with nothing on standard output, that one of them cannot be read.',
  ].join('\n'),
  arguments: { a: { help: PLACE, completes: 'file' }, b: { help: 'another', completes: 'file' } },
  options: {
    fromA: { type: 'text', value: 'FORMAT', help: 'what A must be; a file that holds something else is refused' },
    fromB: { type: 'text', value: 'FORMAT', help: 'what B must be' },
    snapshotA: { type: 'text', value: 'ID|NAME', help: 'the disk of A as it was when this internal snapshot was made' },
    snapshotB: { type: 'text', value: 'ID|NAME', help: 'the same of B' },
    parentA: { type: 'list', value: 'FILE', help: 'what A is a difference to; given again, what that one is a difference to' },
    parentB: { type: 'list', value: 'FILE', help: 'the same of B' },
    partA: { type: 'list', value: 'FILE', help: 'another file of A, where its disk is in several' },
    partB: { type: 'list', value: 'FILE', help: 'the same of B' },
    memberA: { type: 'text', value: 'NAME', help: 'of an archive with several disks, or an OVA: the one of A that is meant' },
    memberB: { type: 'text', value: 'NAME', help: 'the one of B' },
    strict: { type: 'flag', help: 'the sizes must be equal too' },
    ...spoolOption,
  },
  examples: [
    ['imprint compare disk.qcow2 disk.raw', 'after a conversion'],
    ['imprint compare child.qcow2 whole.qcow2 --parent-a base.qcow2', 'a difference, and what became of it'],
    ['imprint compare a.vmdk b.vmdk --strict --json', 'in a script'],
  ],
  exits: [3],
  async run({ a, b, strict, spoolBytes, ...given }, { out, signal }) {
    const progress = new Progress(out)
    await using opened = new AsyncDisposableStack()
    opened.defer(() => progress.end())
    try {
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const ofA: DiskWish = {
        source: a,
        from: given.fromA,
        snapshot: given.snapshotA,
        parents: given.parentA,
        parts: given.partA,
        member: given.memberA,
        memberOption: '--member-a',
      }
      const ofB: DiskWish = {
        source: b,
        from: given.fromB,
        snapshot: given.snapshotB,
        parents: given.parentB,
        parts: given.partB,
        member: given.memberB,
        memberOption: '--member-b',
      }
      const first = opened.adopt((await openDisk(ofA, openFile, onProgress)).disk, (it) => it.close())
      const second = opened.adopt((await openDisk(ofB, openFile, onProgress)).disk, (it) => it.close())
      const sizes = { aBytes: first.size, bBytes: second.size }
      const differ = first.size !== second.size
      const at = differ && strict ? null : await firstDifference(first, second, { signal, onProgress })
      progress.end()
      const equal = at === null && !(differ && strict)
      out.result({ equal, firstDifference: at, ...sizes }, () => {
        const lengths = `${formatBytes(first.size)} (${first.size} bytes) and ${formatBytes(second.size)} (${second.size})`
        if (at !== null) out.line(`${out.tone('Different', 'bad')}: the first byte that differs is ${at} (0x${at.toString(16)}).`)
        else if (!equal) out.line(`${out.tone('Different', 'bad')} sizes: ${lengths}.`)
        else out.line(`${out.tone('Equal', 'good')}: ${safeText(a)} and ${safeText(b)} hold the same disk.`)
        if (differ && equal) out.note(`Their sizes differ, ${lengths}; what one has more is zeros.`)
      })
      return equal ? 0 : 1
    } catch (error) {
      throw withAdvice(endedBy(signal, error), GIVE)
    }
  },
})
