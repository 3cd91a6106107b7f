import { createHash } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { homedir, hostname } from 'node:os'
import { join } from 'node:path'
import type { ComputeClient } from '../client/compute-client.ts'
import { configFolder } from '../login-file.ts'
import type { Environment } from '../output.ts'

export interface LoginKey {
  /** Of the keypair at the service. */
  readonly name: string
  /** What `ssh -i` is given; null: ssh finds it by itself. */
  readonly privateKeyFile: string | null
}

/** In the order in which ssh looks for them. */
const own = ['id_ed25519.pub', 'id_ecdsa.pub', 'id_rsa.pub']

/**
 * The key by which the user will reach an instance: the one in `~/.ssh`, else one that is made on the first use and kept beside the
 * login. The service is told of its public part where it does not know it.
 */
export async function loginKey(compute: ComputeClient, environment: Environment): Promise<LoginKey> {
  const ssh = join(environment.HOME || homedir(), '.ssh')
  for (const file of own) {
    const publicKey = await textOf(join(ssh, file))
    if (publicKey !== null) return { name: await known(compute, publicKey), privateKeyFile: null }
  }
  const path = join(configFolder(environment), 'id_ed25519')
  const publicKey = (await textOf(path)) === null ? null : await textOf(`${path}.pub`)
  if (publicKey !== null) return { name: await known(compute, publicKey), privateKeyFile: path }
  return { name: await make(compute, path), privateKeyFile: path }
}

const textOf = async (path: string): Promise<string | null> => (await readFile(path, 'utf8').catch(() => null))?.trim() || null

/** Kind and key, without the comment. */
const keyOf = (line: string): string => line.split(/\s+/, 2).join(' ')

async function known(compute: ComputeClient, publicKey: string): Promise<string> {
  const there = (await compute.keypairs()).find((keypair) => keyOf(keypair.publicKey) === keyOf(publicKey))
  if (there) return there.name
  const mark = createHash('sha256').update(keyOf(publicKey)).digest('hex').slice(0, 8)
  return (await compute.addKeypair(`${hostName()}-${mark}`, publicKey)).name
}

/** The service makes it, as it does for `openstack keypair create`, and forgets the private part. */
async function make(compute: ComputeClient, path: string): Promise<string> {
  const name = `${hostName()}-${Date.now().toString(36)}`
  const { publicKey, privateKey } = await compute.makeKeypair(name)
  await mkdir(join(path, '..'), { recursive: true, mode: 0o700 })
  await writeFile(`${path}.new`, privateKey, { mode: 0o600 })
  await writeFile(`${path}.pub`, `${publicKey}\n`)
  await rename(`${path}.new`, path) // last: without it the public part means nothing
  return name
}

/** As names of keypairs may be. */
const hostName = (): string =>
  hostname()
    .replace(/[^A-Za-z0-9.-]/g, '-')
    .slice(0, 60) || 'host'
