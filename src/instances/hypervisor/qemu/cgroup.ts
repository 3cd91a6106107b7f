import { randomUUID } from 'node:crypto'
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { KeptSpec } from './machine-folder.ts'

/**
 * Bounds on what the process of a machine takes of its host, by control groups of version 2, each machine in one of its own below
 * a folder that was delegated to the service (systemd: `Delegate=yes`). They are for a process that a guest broke out of, or that
 * went wrong: a machine that behaves does not meet them. Source: Linux Documentation/admin-guide/cgroup-v2.rst.
 */
const PERIOD_US = 100_000
/** QEMU's own: code, device buffers, requests under way; with emulation also its cache of translated code, 1 GiB by default. */
const OWN_BYTES = { kvm: 512 * MiB, tcg: 1536 * MiB }
/** A thread for each processor, and as many as 64 for requests at a time, of which QEMU makes what it needs. */
const OWN_THREADS = 256
const CONTROLLERS = ['memory', 'cpu', 'pids'] as const
const CONTROLLERS_FILE = 'cgroup.controllers'

/**
 * Makes the group, and what below it can be bounded. A group of processes is made and removed for trial.
 * @returns the controllers by which machines are bounded; those that the host has not, or has not delegated, are missing
 * @throws ServiceError `invalid-request` where it is no control group of version 2, or not ours to divide
 */
export async function divide(cgroup: string): Promise<readonly string[]> {
  const trial = join(cgroup, `trial-${randomUUID()}`)
  try {
    const isThere = await readFile(join(cgroup, CONTROLLERS_FILE)).catch(() => null)
    if (!isThere) {
      await readFile(join(dirname(cgroup), CONTROLLERS_FILE)) // elsewhere the new folder would be a mere folder
      await makeGroup(cgroup)
    }
    await askForControllers(cgroup)
    const delegated = await controllersOf(cgroup)
    const ours = CONTROLLERS.filter((each) => delegated.includes(each))
    await writeFile(join(cgroup, 'cgroup.subtree_control'), ours.map((each) => `+${each}`).join(' '), { flag: 'r+' })
    await mkdir(trial)
    await rmdir(trial)
    return ours
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const message = `instanceCgroup: ${cgroup} ${whyNot(code)} (${code})`
    throw new ServiceError('invalid-request', message, { code: code ?? null }, { cause: error })
  }
}

const controllersOf = async (cgroup: string): Promise<readonly string[]> =>
  (await readFile(join(cgroup, CONTROLLERS_FILE), 'utf8')).trim().split(' ')

/** A group has what its parent hands on, and whoever a parent was delegated to has to see to that: systemd does not. */
async function askForControllers(cgroup: string): Promise<void> {
  const parent = dirname(cgroup)
  const there = await controllersOf(cgroup)
  const held = await controllersOf(parent).catch((): readonly string[] => []) // it is the root of what we see
  for (const name of CONTROLLERS.filter((each) => held.includes(each) && !there.includes(each))) {
    await writeFile(join(parent, 'cgroup.subtree_control'), `+${name}`, { flag: 'r+' }).catch(() => undefined) // not ours to hand on
  }
}

function whyNot(code: string | undefined): string {
  if (code === 'ENOENT') return 'is no control group of version 2, nor would it be in one; name a folder below /sys/fs/cgroup'
  if (code === 'EBUSY') return 'has processes of its own, so it cannot be divided; name an empty group below it'
  return 'cannot be divided by the service; delegate it (systemd: Delegate=yes), or name another'
}

/** @throws ServiceError `unavailable` where the folder is no control group that we may divide */
export async function confine(cgroup: string, spec: KeptSpec, accelerator: 'kvm' | 'tcg', pid: number): Promise<void> {
  const folder = join(cgroup, spec.id)
  const limits = {
    'memory.max': spec.memoryBytes + OWN_BYTES[accelerator],
    'cpu.max': `${(spec.cpus + 1) * PERIOD_US} ${PERIOD_US}`, // one more than the guest's: for disks and network
    'pids.max': spec.cpus + OWN_THREADS,
  }
  try {
    await makeGroup(folder)
    for (const [name, limit] of Object.entries(limits)) await limitTo(join(folder, name), limit)
    await writeFile(join(folder, 'cgroup.procs'), String(pid))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const message = `The machine ${spec.id} cannot be confined (${code}); delegate the control group of machines to the service.`
    throw new ServiceError('unavailable', message, { id: spec.id, code: code ?? null }, { cause: error })
  }
}

const makeGroup = (folder: string): Promise<void> =>
  mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })

/** A controller that the host has not, or has not delegated, limits nothing. */
async function limitTo(path: string, limit: string | number): Promise<void> {
  await writeFile(path, String(limit), { flag: 'r+' }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' && error.code !== 'EACCES') throw error // a cgroup's files cannot be made: it is one or the other
  })
}

const EMPTY_WITHIN_MS = 2_000
const POLL_MS = 20

/** Of a machine whose process has ended: the kernel may need a moment until the group is empty. What stays all the same is used again. */
export async function unconfine(cgroup: string, id: string): Promise<void> {
  const deadline = performance.now() + EMPTY_WITHIN_MS
  while (await isBusy(join(cgroup, id))) {
    if (performance.now() >= deadline) return
    await pause(POLL_MS)
  }
}

/** @returns false where it is gone, or cannot go for another reason */
const isBusy = (folder: string): Promise<boolean> =>
  rmdir(folder).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'EBUSY',
  )
