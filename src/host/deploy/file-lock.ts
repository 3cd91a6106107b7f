import { ServiceError } from '../../base/errors.ts'
import { runTool } from './system-tool.ts'

/** flock(1): somebody has it. Other failures are of a file system that has no locks. */
const IS_LOCKED = 1

/**
 * Locks a file for whoever has this descriptor: us, and programs that are handed it, also when we are gone. Where `flock` or the file
 * system cannot, there is no lock. Source: flock(2), "associated with an open file description".
 * @throws ServiceError `conflict` where another has it
 */
export async function lockFile(fd: number, path: string, { isShared }: { readonly isShared: boolean }): Promise<void> {
  const end = await runTool('flock', [isShared ? '--shared' : '--exclusive', '--nonblock', '3'], { fd })
  if (end !== IS_LOCKED) return
  throw new ServiceError(
    'conflict',
    `${path} is in use: another deployment writes it, or one that was killed still makes zeros there. Give the command again when it is over`,
  )
}
