import { ServiceError } from '../../base/errors.ts'
import type { Stretch } from './patched-disk.ts'
import { runTool } from './system-tool.ts'

/** Ways to make zeros without sending them, by programs of util-linux, since Node offers neither call. The first that works is kept. */
const ways = [
  // frees the room; a disk does it only where its freed blocks are sure to read as zeros: fallocate(2), FALLOC_FL_PUNCH_HOLE
  { program: 'fallocate', flags: ['--punch-hole', '--keep-size'] },
  // the disk's own command for zeros: BLKZEROOUT
  { program: 'blkdiscard', flags: ['--force', '--zeroout'] },
] as const

/** One process of this one's for all ranges: a shell starts others at a tenth of the cost. `$0` is the program, `$1` its flags, then come offsets and lengths. */
const EACH =
  'flags=$1; shift; while [ $# -gt 0 ]; do "$0" $flags --offset "$1" --length "$2" /proc/self/fd/3 || exit; shift 2; done'

/** Killed, this process may leave one that still makes zeros: it has the descriptor, and with it our claim on the disk or our lock on the file. */
export class CheapZeros {
  readonly #fd: number
  #way = 0

  /** @param fd of a file or a block device, open for writing */
  constructor(fd: number) {
    this.#fd = fd
  }

  /**
   * @returns whether the ranges are zeros now; where not, some of them may be
   * @throws ServiceError `cancelled`; then, too, some of them may be
   */
  async make(ranges: readonly Stretch[], signal?: AbortSignal): Promise<boolean> {
    const words = ranges.flatMap(({ offset, length }) => [String(offset), String(length)])
    for (let way = this.#way; way < ways.length; way += 1) {
      const { program, flags } = ways[way]!
      const options = { fd: this.#fd, ...(signal ? { signal } : {}) }
      const end = await runTool('sh', ['-c', EACH, program, flags.join(' '), ...words], options)
      if (end === 0) return true
      if (end === 'ended') throw stopped() // what it could not finish is no proof that it cannot
      this.#way = Math.max(this.#way, way + 1)
    }
    return false
  }
}

export const stopped = (): ServiceError => new ServiceError('cancelled', 'stopped; give the same command again to go on')

/** Has the kernel look at the partition table again (`BLKRRPART`). @returns whether a program for it was there and succeeded */
export const rereadPartitions = async (path: string): Promise<boolean> =>
  (await runTool('blockdev', ['--rereadpt', path])) === 0 || (await runTool('partprobe', [path])) === 0
