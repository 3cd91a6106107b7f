import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { authorizeService } from '../policy.ts'
import type { InstancePorts } from '../ports.ts'
import type { KeypairRecord } from '../records.ts'
import { keypairs } from '../store.ts'
import { generateKeypair, parsePublicKey } from './openssh.ts'

type Ports = Pick<InstancePorts, 'catalog' | 'now'>

/** Nova's quota for a user. */
export const MAX_KEYPAIRS = 100

export interface NewKeypair {
  readonly name: string
  /** Absent: a pair is made, and its private key told in the answer, never again. */
  readonly publicKey?: string
  /** Absent: the caller. Others are for administrators. */
  readonly userId?: string
}

/** @throws ServiceError `denied`; `invalid-request`; `conflict` where the user has one of that name; `over-quota` */
export async function createKeypair(
  { catalog, now }: Ports,
  caller: Caller,
  { name, publicKey, userId = caller.userId }: NewKeypair,
): Promise<{ readonly keypair: KeypairRecord; readonly privateKey: string | null }> {
  authorizeFor(caller, userId)
  const made =
    publicKey === undefined ? generateKeypair('Generated-by-Imprint') : { ...parsePublicKey(publicKey), privateKey: null }
  const keypair: KeypairRecord = {
    userId,
    name,
    publicKey: made.line,
    fingerprint: made.fingerprint,
    createdAt: now(),
  }
  await catalog.write(async ({ documents }) => {
    if (await keypairs.get(documents, userId, name)) {
      throw new ServiceError('conflict', `Key pair '${name}' already exists.`)
    }
    if ((await keypairs.ofUser(documents, userId)).length >= MAX_KEYPAIRS) {
      throw new ServiceError('over-quota', `Quota exceeded, too many key pairs: a user has at most ${MAX_KEYPAIRS}`)
    }
    await keypairs.put(documents, keypair)
  })
  return { keypair, privateKey: made.privateKey }
}

/** Ascending by name. */
export async function listKeypairs(
  { catalog }: Ports,
  caller: Caller,
  userId = caller.userId,
): Promise<readonly KeypairRecord[]> {
  authorizeFor(caller, userId)
  return keypairs.ofUser(catalog.documents, userId)
}

/** @throws ServiceError `denied`, `not-found` */
export async function showKeypair(
  { catalog }: Pick<Ports, 'catalog'>,
  caller: Caller,
  name: string,
  userId = caller.userId,
): Promise<KeypairRecord> {
  authorizeFor(caller, userId)
  return (await keypairs.get(catalog.documents, userId, name)) ?? absent(name, userId)
}

/** Instances keep what they were given of it. @throws ServiceError `denied`, `not-found` */
export async function deleteKeypair({ catalog }: Ports, caller: Caller, name: string, userId = caller.userId): Promise<void> {
  authorizeFor(caller, userId)
  await catalog.write(async ({ documents }) => {
    if (!(await keypairs.delete(documents, userId, name))) absent(name, userId)
  })
}

const authorizeFor = (caller: Caller, userId: string): void =>
  authorizeService(caller, userId === caller.userId ? 'own-keypairs' : 'keypairs-of-others')

function absent(name: string, userId: string): never {
  throw new ServiceError('not-found', `Keypair ${name.slice(0, 255)} not found for user ${userId}`)
}
