import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { ServiceError } from '../base/errors.ts'
import type { Environment } from './output.ts'

/** What `imprint login` keeps: `$XDG_CONFIG_HOME/imprint/login.json`, readable by its owner alone. */
export interface Login {
  /** Address of the service. */
  readonly url: string
  /** Absent where the login came from elsewhere and the identity API is not the service's own. */
  readonly userId: string
  readonly userName: string
  readonly projectId: string | null
  readonly projectName: string | null
  /** Gets a new token when the last one has expired. */
  readonly credential: { readonly id: string; readonly secret: string } | null
  readonly token: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

const OWNER_ONLY = 0o600

export const configFolder = (environment: Environment): string =>
  join(environment.XDG_CONFIG_HOME || join(environment.HOME || homedir(), '.config'), 'imprint')
export const cacheFolder = (environment: Environment): string =>
  join(environment.XDG_CACHE_HOME || join(environment.HOME || homedir(), '.cache'), 'imprint')
const loginPath = (environment: Environment): string => join(configFolder(environment), 'login.json')

export async function readLogin(environment: Environment): Promise<Login | undefined> {
  const path = loginPath(environment)
  try {
    const login = JSON.parse(await readFile(path, 'utf8')) as Partial<Login> | null
    if (typeof login?.url === 'string' && typeof login.token === 'string' && typeof login.userId === 'string')
      return login as Login
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    if ((error as NodeJS.ErrnoException).code) throw error
  }
  throw new ServiceError('unauthenticated', `${path} is damaged; log in again with: imprint login`)
}

export async function writeLogin(environment: Environment, login: Login): Promise<void> {
  const path = loginPath(environment)
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const unfinished = `${path}.${process.pid}`
  const file = await open(unfinished, 'wx', OWNER_ONLY)
  try {
    await file.writeFile(`${JSON.stringify(login, null, 2)}\n`)
  } finally {
    await file.close()
  }
  await rename(unfinished, path)
}

export const forgetLogin = (environment: Environment): Promise<void> => rm(loginPath(environment), { force: true })
