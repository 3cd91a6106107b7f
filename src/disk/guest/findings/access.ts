import { type Account, readAccounts, readAuthorizedKeys } from '../customisation/accounts.ts'
import { passwordHash } from './crypt.ts'
import type { Look, NewCheck } from './look.ts'

/** What everybody tries first, after the name of the account. */
const wellKnown: readonly string[] = [
  'password',
  'root',
  'toor',
  'admin',
  'changeme',
  'vagrant',
  'debian',
  'ubuntu',
  'alpine',
  'raspberry',
  '123456',
  '12345678',
  'test',
  'packer',
]
/** Of places that sshd is told to look for keys in, and of accounts that they are looked up for. */
const MAX_PLACES = 200
/** Of an account; crypt's work grows with the square of a password's length. useradd(8) takes 32. */
const MAX_NAME = 64
/** Of crypt's rounds in one look: about a second. */
const MAX_ROUNDS = 400_000
const keyNames: readonly string[] = ['authorized_keys', 'authorized_keys2', 'administrators_authorized_keys']

/** Who can log in: by keys, by passwords, by what sshd permits. */
export const access: NewCheck = (look) => {
  const seen = new Set<string>()
  const keysAt = async (path: string) => {
    if (seen.has(path)) return
    seen.add(path)
    for (const { type, fingerprint, comment } of (await look.attempt(path, () => readAuthorizedKeys(look.tree, path))) ?? [])
      look.add('authorized-key', path, `${type} ${fingerprint}${comment === '' ? '' : ` ${comment}`}`)
  }
  return {
    async places() {
      const accounts = (await look.attempt('/etc/passwd', () => readAccounts(look.tree))) ?? []
      for (const path of new Set(accounts.flatMap(({ keys }) => keys.map((key) => key.path)))) await keysAt(path)
      await passwords(look, accounts)
      const places = await sshd(look, accounts)
      for (const { name, home } of accounts.slice(0, MAX_PLACES))
        for (const place of places) await keysAt(placeOf(place, name, home))
    },
    async file({ path, name }) {
      if (keyNames.includes(name)) await keysAt(path)
    },
  }
}

/** `%u`, `%h` and what is relative to the home. Source: sshd_config(5), "TOKENS". */
function placeOf(place: string, name: string, home: string): string {
  const path = place.replace(/%[%uh]/g, (token) => (token === '%u' ? name : token === '%h' ? home : '%'))
  return path.startsWith('/') ? path : `${home === '/' ? '' : home}/${path}`
}

async function passwords(look: Look, accounts: readonly Account[]): Promise<void> {
  const hashes = new Map<string, { readonly hash: string; readonly path: string }>()
  for (const path of ['/etc/passwd', '/etc/shadow'])
    for (const line of ((await look.text(path)) ?? '').split('\n')) {
      const [name = '', hash = ''] = line.split(':')
      if (hash !== 'x') hashes.set(name, { hash, path })
    }
  let left = MAX_ROUNDS
  for (const { name, password, passwordScheme, hasShell } of accounts) {
    look.signal?.throwIfAborted()
    const { hash: kept, path } = hashes.get(name) ?? { hash: '', path: '/etc/shadow' }
    if (password === 'empty' && hasShell) look.add('password-empty', path, `the account ${name} has an empty password`)
    if (password !== 'set') continue
    const hash = passwordHash(kept)
    const own = name.length <= MAX_NAME ? [name] : []
    const tried = [...own, ...wellKnown.filter((each) => each !== name)]
    if (!hash)
      look.add('password-set', path, `the account ${name}: ${passwordScheme}, which is not compared with well-known ones`)
    else if (hash.rounds * tried.length > left)
      look.add('password-set', path, `the account ${name}: ${passwordScheme}, too costly to compare with well-known ones`)
    else {
      left -= hash.rounds * tried.length
      const known = tried.some((each) => hash.matches(each))
      if (known) look.add('password-default', path, `the account ${name} has a password that everybody tries first`)
      else look.add('password-set', path, `the account ${name}: ${passwordScheme}, and none of ${tried.length} well-known ones`)
    }
  }
}

/**
 * What sshd permits. The first value of a keyword counts; an included file stands where it is included. Source: sshd_config(5).
 * @returns where it looks for keys, beside where it does of itself
 */
async function sshd(look: Look, accounts: readonly Account[]): Promise<readonly string[]> {
  const values = new Map<string, { readonly value: string; readonly path: string }>()
  const places: string[] = []
  let isIncluded = false // once is enough: what is there already keeps its value
  const read = async (path: string) => {
    for (const line of ((await look.text(path)) ?? '').split('\n')) {
      const [keyword = '', value = '', ...more] = line
        .trim()
        .replaceAll('=', ' ')
        .split(/[ \t]+/, 10)
      const key = keyword.toLowerCase()
      if (key === 'authorizedkeysfile' && !values.has(key)) places.push(...[value, ...more].filter((each) => each !== 'none'))
      if (key === 'match') return // what is below holds for some only
      if (key === 'include' && !isIncluded && /^"?(?:\/etc\/ssh\/)?sshd_config\.d\/\*(\.conf)?"?$/.test(value)) {
        isIncluded = true
        for (const name of await look.names('/etc/ssh/sshd_config.d'))
          if (name.endsWith('.conf')) await read(`/etc/ssh/sshd_config.d/${name}`)
      } else if (!values.has(key)) values.set(key, { value: value.replaceAll('"', '').toLowerCase(), path })
    }
  }
  await read('/etc/ssh/sshd_config')
  const is = (key: string, value: string) => values.get(key)?.value === value
  if (is('permitrootlogin', 'yes') && !is('passwordauthentication', 'no')) {
    const { path } = values.get('permitrootlogin')!
    const hasPassword = accounts.some(({ uid, password }) => uid === 0 && password !== 'locked')
    if (hasPassword) look.add('ssh-root-login', path, 'PermitRootLogin yes, and root has a password')
    else look.add('ssh-root-login-permitted', path, 'PermitRootLogin yes')
  }
  if (is('permitemptypasswords', 'yes'))
    look.add('ssh-empty-passwords', values.get('permitemptypasswords')!.path, 'PermitEmptyPasswords yes')
  return places
}
