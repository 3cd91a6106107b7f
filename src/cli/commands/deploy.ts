import { readFile } from 'node:fs/promises'
import { formatBytes, MiB } from '../../base/units.ts'
import { assertFits } from '../../host/deploy/fit.ts'
import { thisMachine } from '../../host/deploy/this-machine.ts'
import { httpOrigin } from '../../host/http-origin.ts'
import { endQuietly, keepExport } from '../attach/kept-export.ts'
import { command } from '../command.ts'
import { confirmLoss } from '../deploy/confirm.ts'
import { type DeployOutcome, deployImage } from '../deploy/deploy-image.ts'
import { UsageError } from '../exit-codes.ts'
import type { Output } from '../output.ts'
import { Progress } from '../progress.ts'
import { safeText } from '../safe-text.ts'
import { openSession } from '../session.ts'

/** Of a seed on a disk there is no limit; nobody writes more by hand. */
const MAX_USER_DATA_BYTES = MiB
/** Where the kernel tells what the machine is, unless IMPRINT_SYS names another folder, as tests do. */
const SYS = '/sys'

export const deploy = command({
  name: 'deploy',
  summary: 'Write the disk of an image onto a disk of this machine: what differs, verified',
  description: [
    'The disk is read, and only chunks that differ from the image are fetched and written; then they are read back. Given again after',
    'it was stopped, killed or cut off, it goes on. Until all is written and verified the head of the disk is zeros, so that no firmware',
    'starts from half a system. A disk that is mounted or in use is refused, and one of a machine that the image is not made for: its',
    'properties server_models, hw_architecture and hw_firmware_type are compared with DMI data, processor and firmware.',
  ].join('\n'),
  arguments: { image: { help: 'name or id' } },
  options: {
    to: { type: 'text', value: 'PATH', help: 'the disk, as /dev/sda, or a file; must be given', completes: 'file' },
    yes: { type: 'flag', help: 'do not ask before the content of the disk is replaced' },
    dryRun: { type: 'flag', help: 'write nothing; say how much differs' },
    forceModel: { type: 'flag', help: 'write it also where the image says that it is not made for such a machine' },
    userData: {
      type: 'text',
      value: 'FILE',
      help: 'what cloud-init does when the system starts: a script, or #cloud-config; in a partition at the end of the disk',
      completes: 'file',
    },
    noGrow: { type: 'flag', help: 'leave the partition table (GPT) as it is, also where the disk is larger than the image' },
  },
  examples: [
    ['imprint deploy debian-12 --to /dev/sda', 'reinstall this machine, from a rescue system'],
    ['imprint deploy debian-12 --to /dev/nvme0n1 --yes --json', 'in a script'],
    ['imprint deploy debian-12 --to /dev/sda --user-data setup.yaml', 'with its first configuration'],
    ['imprint deploy debian-12 --to disk.raw --dry-run', 'compare'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ image: wanted, to: path, yes, dryRun, noGrow, forceModel, userData }, { out, connect, signal, environment }) {
    if (path === undefined)
      throw new UsageError('say where to with --to: a disk, as /dev/sda, or a file; see: imprint deploy --help')
    if (userData !== undefined && noGrow) throw new UsageError('--user-data needs the partition table, which --no-grow leaves')
    const configuration = userData === undefined ? undefined : await readUserData(userData)
    const session = await connect()
    const image = await session.images.find(wanted)
    const name = image.name ?? image.id
    await using opened = new AsyncDisposableStack()
    const kept = opened.adopt(await keepExport(session, image.id, () => openSession(environment)), (it) => endQuietly(it, out))
    const progress = new Progress(out)
    opened.defer(() => progress.end())
    const outcome = await deployImage({
      origin: httpOrigin(session.http, kept.made.id, kept.signIn),
      path,
      isDry: dryRun,
      isGrown: !noGrow,
      ...(configuration ? { seed: { imageId: image.id, userData: configuration } } : {}),
      signal,
      onProgress: (state) => progress.show(state),
      assertFits: async (target) => {
        const isAsked = target.device !== null && !forceModel // a file may be for another machine
        if (isAsked) assertFits({ ...image, name }, await thisMachine(environment.IMPRINT_SYS || SYS), target)
      },
      confirm: async (target) => (yes ? undefined : confirmLoss(out, target, name)),
    })
    progress.end()
    out.result({ image: image.id, name: image.name, dryRun, ...outcome }, () => tell(out, name, outcome, dryRun))
    return 0
  },
})

async function readUserData(path: string): Promise<Uint8Array> {
  const bytes = await readFile(path)
  if (bytes.length <= MAX_USER_DATA_BYTES) return bytes
  throw new UsageError(`--user-data ${path} has ${bytes.length} bytes; ${MAX_USER_DATA_BYTES} is the limit`)
}

function tell(out: Output, name: string, outcome: DeployOutcome, isDry: boolean): void {
  const { target, sameBytes, writtenBytes, zeroedBytes, fetchedBytes, readsMedium, partitionTable, isReread } = outcome
  const [path, image] = [safeText(target.path), safeText(name)]
  const amounts = `${formatBytes(writtenBytes)} of data and ${formatBytes(zeroedBytes)} of zeros`
  if (isDry) {
    out.line(`${path} differs from ${image} in ${amounts}; ${formatBytes(sameBytes)} are there already.`)
    return
  }
  if (writtenBytes + zeroedBytes === 0) {
    out.line(`${path} holds ${image}: all of its ${formatBytes(sameBytes)} were there already; nothing was written.`)
    return
  }
  const how = readsMedium
    ? 'read back and verified'
    : 'verified through the cache of the system, which is all that this file system offers'
  out.line(`Wrote ${image} onto ${path}: ${amounts}, ${how}; ${formatBytes(sameBytes)} were there already.`)
  out.note(
    `${formatBytes(fetchedBytes)} came over the line.${partitionTable === null ? '' : ` Note: ${safeText(partitionTable)}.`}`,
  )
  if (isReread === false)
    out.note(
      'The kernel still has the partition table from before (blockdev and partprobe failed): restart before you use its partitions.',
    )
}
