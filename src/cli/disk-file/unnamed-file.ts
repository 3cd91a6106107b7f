import { constants } from 'node:fs'

/** Linux: a file without a name, which is gone with the last who has it open. open(2). Node has no constant for it. */
export const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

/** What file systems, and systems, without such files answer; ENOENT too where there is no folder. */
export const isWithoutUnnamed = (error: unknown): boolean =>
  ['EOPNOTSUPP', 'EISDIR', 'EINVAL', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')
