import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { ServiceError } from '../../../base/errors.ts'
import type { ProcessUser } from './process.ts'

/** Whom QEMU runs as, by the words of the system. */

const run = promisify(execFile)
/** What useradd(8) takes for a name, or a number. */
const NAME = /^([A-Za-z_][A-Za-z0-9_.-]*\$?|\d{1,10})$/

/**
 * @param name or number
 * @throws ServiceError `invalid-request` where there is no such user, it is root, or only root could become it
 */
export async function systemUser(name: string): Promise<ProcessUser> {
  const line = NAME.test(name) ? await run('getent', ['passwd', name]).catch(() => null) : null
  const [, , uid = '', gid = ''] = line?.stdout.split(':') ?? []
  if (!line || !/^\d+$/.test(uid) || !/^\d+$/.test(gid)) {
    refuse(`this machine has no user "${name}"; make one: useradd --system --no-create-home --shell /usr/sbin/nologin ${name}`)
  }
  if (Number(uid) === 0) refuse(`"${name}" is root, whom a guest that breaks out of QEMU must not be; name another user`)
  if (process.getuid?.() !== 0) {
    refuse(`only root can start QEMU as "${name}"; run the service as root, or leave the setting out`)
  }
  return inKvmGroup({ uid: Number(uid), gid: Number(gid) })
}

/** Where /dev/kvm belongs to a group, QEMU runs in that group. */
export async function inKvmGroup(user: ProcessUser): Promise<ProcessUser> {
  const device = await stat('/dev/kvm').catch(() => null)
  const isForGroup = device !== null && (device.mode & 0o060) === 0o060
  return isForGroup ? { uid: user.uid, gid: device.gid } : user
}

/** Prints the first of its arguments, the last of which is a socket, that is in the way. */
const LOOK = 'while [ $# -gt 1 ]; do [ -x "$1" ] || { echo "$1"; exit; }; shift; done; [ -r "$1" ] && [ -w "$1" ] || echo "$1"'

/**
 * Looks as the user would.
 * @param path absolute, of a socket that is there
 * @throws ServiceError `invalid-request`, naming what is in the way and how it is opened
 */
export async function assertReaches(user: ProcessUser, path: string): Promise<void> {
  const { stdout } = await run('/bin/sh', ['-c', LOOK, 'sh', ...foldersOf(path), path], { ...user, cwd: '/', env: {} })
  const inTheWay = stdout.replace(/\n$/, '')
  if (inTheWay === '') return
  const how = inTheWay === path ? 'chown it to that user' : `chmod o+x '${inTheWay}', or choose another place with --nbd-socket`
  refuse(`QEMU, as the user ${user.uid}, would not reach its disks at ${path}: ${inTheWay} is closed to it; ${how}`)
}

/** `/a/b/c` → `/`, `/a`, `/a/b` */
const foldersOf = (path: string): readonly string[] => {
  const above = dirname(path)
  return above === path ? [] : [...foldersOf(above), above]
}

function refuse(problem: string): never {
  throw new ServiceError('invalid-request', `instanceUser: ${problem}`)
}
