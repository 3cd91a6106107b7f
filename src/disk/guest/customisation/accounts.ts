import { createHash } from 'node:crypto'
import { MiB } from '../../../base/units.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { linesOf } from '../software/lines.ts'

/** An account of /etc/passwd. Strings are the guest's: to be shown inert. */
export interface Account {
  readonly name: string
  readonly uid: number
  readonly home: string
  readonly shell: string
  /** How it can log in with a password. `empty`: without one; `locked`: by none; `set`: by one whose hash is of `passwordScheme`. */
  readonly password: 'empty' | 'locked' | 'set'
  /** By its `$id$` of crypt(5): yescrypt, sha512 …; null where there is none. */
  readonly passwordScheme: string | null
  /** Who may log in by SSH. */
  readonly keys: readonly AuthorizedKey[]
  /** Whether its shell is one that goes on. */
  readonly hasShell: boolean
  /** Whether somebody can log in to it: by a shell, and a password or a key. */
  readonly canLogIn: boolean
}

export interface AuthorizedKey {
  /** `ssh-ed25519` … */
  readonly type: string
  /** As ssh-keygen prints it: `SHA256:…`. */
  readonly fingerprint: string
  readonly comment: string
  readonly path: string
}

const MAX_FILE_BYTES = 16 * MiB
const MAX_ACCOUNTS = 10_000
const MAX_KEYS = 1000
/** Shells that end at once: nologin(8), false(1). */
const noShells: readonly string[] = ['nologin', 'false', 'sync', 'halt', 'shutdown']
/** Source: crypt(5), "Available hashing methods". */
const schemes: Readonly<Record<string, string>> = {
  y: 'yescrypt',
  gy: 'gost-yescrypt',
  '7': 'scrypt',
  '2a': 'bcrypt',
  '2b': 'bcrypt',
  '2y': 'bcrypt',
  '6': 'sha512',
  '5': 'sha256',
  sha1: 'sha1',
  md5: 'sunmd5',
  '1': 'md5',
}

/** The accounts of a Linux, in the order of /etc/passwd. Sources: passwd(5), shadow(5), sshd(8) on authorized_keys. @throws ServiceError where a file is damaged or beyond a limit */
export async function readAccounts(tree: FileTree): Promise<readonly Account[]> {
  const shadow = new Map<string, string>()
  for await (const [name = '', hash = ''] of fieldsOf(tree, '/etc/shadow')) shadow.set(name, hash)
  const accounts: Account[] = []
  for await (const fields of fieldsOf(tree, '/etc/passwd')) {
    const [name = '', kept = '', uid = '', , , home = '', shell = ''] = fields
    if (name === '' || fields.length < 7 || !/^\d+$/.test(uid)) continue
    if (accounts.length >= MAX_ACCOUNTS) break
    const hash = kept === 'x' ? (shadow.get(name) ?? '!') : kept
    const password = hash === '' ? 'empty' : /^[!*]/.test(hash) ? 'locked' : 'set'
    const keys = home.startsWith('/') ? await keysOf(tree, home) : []
    const hasShell = !noShells.includes(shell.split('/').at(-1)!)
    accounts.push({
      name,
      uid: Number(uid),
      home,
      shell,
      password,
      passwordScheme: password === 'set' ? (schemes[/^\$([^$]+)\$/.exec(hash)?.[1] ?? ''] ?? 'des') : null,
      keys,
      hasShell,
      canLogIn: hasShell && (password !== 'locked' || keys.length > 0),
    })
  }
  return accounts
}

async function* fieldsOf(tree: FileTree, path: string): AsyncGenerator<string[]> {
  const file = await tree.open(path)
  if (!file) return
  for await (const line of linesOf(file, { path, maxBytes: MAX_FILE_BYTES }))
    if (line !== '' && !line.startsWith('#')) yield line.split(':')
}

const keyFiles: readonly string[] = ['.ssh/authorized_keys', '.ssh/authorized_keys2']
const KEY = /(?:^|\s)((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+)\s+([A-Za-z0-9+/]{16,}={0,2})(?:\s+(.*))?$/

async function keysOf(tree: FileTree, home: string): Promise<AuthorizedKey[]> {
  const keys: AuthorizedKey[] = []
  for (const name of keyFiles) keys.push(...(await readAuthorizedKeys(tree, `${home === '/' ? '' : home}/${name}`)))
  return keys
}

/** The keys in a file, at most 1,000; none where there is no such file. Source: sshd(8), "AUTHORIZED_KEYS FILE FORMAT". @throws ServiceError where it is damaged or beyond a limit */
export async function readAuthorizedKeys(tree: FileTree, path: string): Promise<readonly AuthorizedKey[]> {
  const file = await tree.open(path)
  if (!file) return []
  const keys: AuthorizedKey[] = []
  for await (const line of linesOf(file, { path, maxBytes: MAX_FILE_BYTES })) {
    const [, type, bytes, comment = ''] = (line.startsWith('#') ? undefined : KEY.exec(line)) ?? []
    if (type === undefined || bytes === undefined || keys.length >= MAX_KEYS) continue
    const digest = createHash('sha256').update(Buffer.from(bytes, 'base64')).digest('base64').replace(/=+$/, '')
    keys.push({ type, fingerprint: `SHA256:${digest}`, comment: comment.trim().slice(0, 256), path })
  }
  return keys
}
