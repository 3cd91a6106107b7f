import { readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ProcessUser } from './process.ts'
import { type Accelerator, workingAccelerators } from './processor-trial.ts'

const ALL: readonly Accelerator[] = ['kvm', 'tcg'] // best first
const FILE = 'accelerators.json'

/**
 * The accelerators that machines run with, best first. A trial that fails takes seconds, and a service that starts again should not
 * wait for it: what was found is kept in `folder`, and good until the host starts anew, or another QEMU or /dev/kvm is there.
 */
export async function triedAccelerators(folder: string, program: string, user?: ProcessUser): Promise<readonly Accelerator[]> {
  const path = join(folder, FILE)
  const host = JSON.stringify([await bootId(), program, await factsOf(program), await factsOf('/dev/kvm'), user ?? null])
  const kept = await read(path)
  if (kept?.host === host) return kept.accelerators
  const accelerators = await workingAccelerators(program, user)
  if (accelerators.length === 0) return [] // emulation always runs: something else is wrong, and may be mended
  await writeFile(`${path}.new`, JSON.stringify({ host, accelerators }), { mode: 0o600 })
    .then(() => rename(`${path}.new`, path))
    .catch(() => undefined) // on a full disk: the next start tries again
  return accelerators
}

const bootId = (): Promise<string> => readFile('/proc/sys/kernel/random/boot_id', 'utf8')

async function factsOf(path: string): Promise<readonly number[] | null> {
  const found = await stat(path).catch(() => null)
  return found && [found.ino, found.mode, found.uid, found.gid, found.isFile() ? found.mtimeMs : found.rdev]
}

interface Kept {
  readonly host: string
  readonly accelerators: readonly Accelerator[]
}

/** Undefined where there is none, or it is not what we wrote. */
async function read(path: string): Promise<Kept | undefined> {
  try {
    const { host, accelerators } = JSON.parse(await readFile(path, 'utf8'))
    return typeof host === 'string' && Array.isArray(accelerators)
      ? { host, accelerators: ALL.filter((each) => accelerators.includes(each)) }
      : undefined
  } catch {
    return undefined
  }
}
