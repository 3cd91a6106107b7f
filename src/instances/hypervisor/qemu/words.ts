import { open } from 'node:fs/promises'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import type { MachineDisk } from '../hypervisor.ts'
import type { KeptSpec } from './machine-folder.ts'

/** What QEMU said before it ended: for people, so without what is nobody's business. */

const MAX_LINES = 3
const MAX_CHARACTERS = 1000
const READ_BYTES = 16 * 1024
/** Beyond it QEMU's words are thrown away: a guest that makes QEMU complain must not fill the disk. */
const MAX_WORDS_BYTES = 1024 * 1024

/** Empty where it said nothing. */
export async function lastWords(path: string, spec: KeptSpec): Promise<string> {
  const file = await open(path, 'r').catch(() => null)
  if (!file) return ''
  try {
    const { size } = await file.stat()
    const { buffer, bytesRead } = await file.read(Buffer.alloc(READ_BYTES), 0, READ_BYTES, Math.max(0, size - READ_BYTES))
    return tidy(buffer.toString('utf8', 0, bytesRead), spec)
  } finally {
    await file.close()
  }
}

export function tidy(text: string, spec: KeptSpec): string {
  const lines = text
    .split('\n')
    .map((line) => line.replace(/^qemu-system-\S+: /, '').trim())
    .filter((line) => line !== '' && !line.startsWith('warning:'))
  const plain = lines
    .slice(-MAX_LINES)
    .join(' / ')
    .replaceAll(/\p{Cc}/gu, ' ')
  return withoutSecrets(plain, spec.disks).slice(0, MAX_CHARACTERS)
}

/** What QEMU said of these disks. */
export const inPublic = (error: unknown, disks: readonly MachineDisk[]): unknown =>
  isServiceError(error)
    ? new ServiceError(error.code, withoutSecrets(error.message, disks), error.details, { cause: error })
    : error

/** Names of exports open disks; paths are the host's. */
function withoutSecrets(text: string, disks: readonly MachineDisk[]): string {
  let answer = text
  for (const { name, base, store } of disks) {
    for (const address of [base, store]) {
      if (address?.exportName) answer = answer.replaceAll(address.exportName, `(export of ${name})`)
      if (address) answer = answer.replaceAll(address.socketPath, `(socket of ${name})`)
    }
  }
  return answer
}

/** QEMU appends to the file, so it goes on from the start. */
export async function boundWords(path: string): Promise<void> {
  const file = await open(path, 'r+').catch(() => null)
  if (!file) return
  try {
    if ((await file.stat()).size > MAX_WORDS_BYTES) await file.truncate(0)
  } finally {
    await file.close()
  }
}
