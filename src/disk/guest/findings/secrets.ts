import { createHash } from 'node:crypto'
import { MiB } from '../../../base/units.ts'
import { linesOf } from '../software/lines.ts'
import { credentialsAt } from './credential-files.ts'
import type { Look, NewCheck, VisitedFile } from './look.ts'
import { type PrivateKey, privateKeysIn } from './private-key.ts'
import { tokensIn } from './tokens.ts'

/** What others keep here, or made here, and is looked at by other rules. */
const skipped = /^\/var\/(?:log|cache|lib\/(?:apt|cloud|dpkg|rpm|pacman|dnf|systemd|man-db))\//
const HOST_KEY = /\/(?:ssh\/ssh_host_[^/]*key|dropbear\/dropbear_[^/]*_key)$/i
/** Made for the machine when a package was installed. */
const localKeys = /^\/etc\/(?:ssl\/private\/ssl-cert-snakeoil\.key|pki\/tls\/private\/localhost\.key)$/
/** Where programs of others lie. */
const broughtAlong = /\/(?:site-packages|dist-packages|node_modules|gems|pkg\/mod|\.cargo\/registry|share\/doc|testdata)\//
const keyStores = /\.(?:p12|pfx|jks|keystore|kdbx?|ppk)$/i
const gnupgKeys = /\/\.gnupg\/(?:private-keys-v1\.d\/[^/]+\.key|secring\.gpg)$/
const MAX_MD5SUMS_BYTES = 16 * MiB

/** Private keys, credentials and tokens in files, and the host keys of SSH. */
export const secrets: NewCheck = (look) => {
  const keys: { readonly file: VisitedFile; readonly key: PrivateKey }[] = []
  return {
    async file(file) {
      if (file.bytes === 0 || skipped.test(file.path)) return
      if (HOST_KEY.test(file.path)) return look.add('ssh-host-key', file.path, await hostKey(look, file))
      const kind = await credentialsAt(file.path, file.text)
      if (kind !== undefined) look.add('credentials', file.path, kind)
      if (gnupgKeys.test(file.path)) return look.add('private-key', file.path, 'a key of GnuPG')
      const text = await file.text()
      if (text === undefined) {
        if (keyStores.test(file.name)) look.add('private-key-encrypted', file.path, 'a store that may hold private keys')
        return
      }
      for (const key of privateKeysIn(text)) keys.push({ file, key })
      if (kind !== undefined || broughtAlong.test(file.path)) return
      for (const token of tokensIn(text)) look.add('token', file.path, `${token.kind}, ${token.fingerprint}`)
    },
    async end() {
      const ofPackages = await asPackaged(
        look,
        keys.map(({ file }) => file),
      )
      for (const { file, key } of keys) {
        const what = `${key.kind}${key.isEncrypted ? ', with a password' : ''}, ${key.fingerprint}`
        look.add(ruleOf(file, key, ofPackages), file.path, what)
      }
    },
  }
}

function ruleOf({ path }: VisitedFile, { isEncrypted }: PrivateKey, ofPackages: ReadonlySet<string>) {
  if (localKeys.test(path)) return 'private-key-local'
  if (broughtAlong.test(path) || ofPackages.has(path)) return 'private-key-of-package'
  return isEncrypted ? 'private-key-encrypted' : 'private-key'
}

async function hostKey(look: Look, file: VisitedFile): Promise<string> {
  const [key] = privateKeysIn((await file.text()) ?? '')
  if (key?.fingerprint.startsWith('SHA256:')) return `${key.kind}, ${key.fingerprint}`
  const [type, bytes] = ((await look.text(`${file.path}.pub`)) ?? '').slice(0, 8192).split(/[ \t\n]/, 2)
  if (!type || !bytes || !/^[a-z0-9@.-]{1,64}$/.test(type)) return key?.kind ?? 'a host key'
  return `${type}, SHA256:${createHash('sha256').update(Buffer.from(bytes, 'base64')).digest('base64').replace(/=+$/, '')}`
}

/** Which of the files are byte by byte as dpkg installed them. Source: deb-md5sums(5). */
async function asPackaged(look: Look, files: readonly VisitedFile[]): Promise<ReadonlySet<string>> {
  const sums = new Map<string, string>()
  for (const { path, found } of files) {
    if (sums.has(path)) continue
    const bytes = await look.attempt(path, async () => {
      const file = await found.fileSystem.data(found.node)
      return file.size > MiB ? undefined : file.read(0, file.size)
    })
    if (bytes) sums.set(path, createHash('md5').update(bytes).digest('hex'))
  }
  const same = new Set<string>()
  if (sums.size === 0) return same
  const folder = '/var/lib/dpkg/info'
  for (const name of await look.names(folder)) {
    if (!name.endsWith('.md5sums')) continue
    const path = `${folder}/${name}`
    await look.attempt(path, async () => {
      const file = await look.tree.open(path)
      if (!file) return
      for await (const line of linesOf(file, { path, maxBytes: MAX_MD5SUMS_BYTES })) {
        const installed = `/${line.slice(34)}`
        if (sums.get(installed) === line.slice(0, 32)) same.add(installed)
      }
    })
  }
  return same
}
