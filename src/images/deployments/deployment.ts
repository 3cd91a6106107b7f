import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { CatalogReader, CatalogWriter, StoredDocument } from '../../store/catalog/catalog.ts'

/** A machine may be written with an image: whoever starts from the network as that machine is told to do it. */
export interface Deployment {
  readonly projectId: string
  readonly image: DeployedImage
  /** The MAC by which the machine is known, `52:54:00:12:34:56`; null: the first one that asks, whose MAC then stands here. */
  readonly machine: string | null
  /** The disk to write, as `parseDiskChoice` takes it. */
  readonly target: string
  /** Holds the image's bytes until it is over. */
  readonly leaseId: string
  /** SHA-256 of the token, in hex; null: none was given out. The token itself is kept nowhere. */
  readonly tokenHash: string | null
  readonly state: DeploymentState
  readonly doneBytes: number
  /** Null: not known yet. */
  readonly totalBytes: number | null
  /** What went wrong. */
  readonly message: string | null
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly updatedAt: number
  readonly expiresAt: number
}
export type DeploymentState = 'waiting' | 'writing' | 'done' | 'failed'

/** What the machine must know of the image to see whether it fits. */
export interface DeployedImage {
  readonly id: string
  readonly name: string | null
  /** GB and MB, as Glance has them. */
  readonly minDisk: number
  readonly minRam: number
  readonly properties: Readonly<Record<string, string>>
}

export type StoredDeployment = StoredDocument<Deployment>

const KIND = 'deployment'
const TOKEN_BYTES = 32 // as many as no one guesses, ever
const PAGE = 500
/** In the index of machines: those that wait for any. */
const ANY = 'any'

export const isOpen = ({ state, expiresAt }: Deployment, now: number): boolean =>
  (state === 'waiting' || state === 'writing') && expiresAt > now

export function newToken(): { readonly token: string; readonly tokenHash: string } {
  const token = randomBytes(TOKEN_BYTES).toString('base64url')
  return { token, tokenHash: hashOf(token).toString('hex') }
}
const hashOf = (token: string): Buffer => createHash('sha256').update(token).digest()

export const isToken = ({ tokenHash }: Deployment, token: string): boolean =>
  tokenHash !== null && timingSafeEqual(hashOf(token), Buffer.from(tokenHash, 'hex'))

/** @param expect the version that must stand there; absent: a new one */
export function putDeployment(
  { documents }: CatalogWriter,
  id: string,
  deployment: Deployment,
  expect = 0,
): Promise<StoredDeployment> {
  const isOver = deployment.state === 'done' || deployment.state === 'failed'
  const indexes = { project: deployment.projectId, ...(isOver ? {} : { machine: deployment.machine ?? ANY }) }
  return documents.put(KIND, id, deployment, { indexes, expect })
}

export const getDeployment = ({ documents }: CatalogReader, id: string): Promise<StoredDeployment | undefined> =>
  documents.get<Deployment>(KIND, id)

export const deleteDeployment = ({ documents }: CatalogWriter, id: string): Promise<boolean> => documents.delete(KIND, id)

export const deploymentsOfProject = (
  { documents }: CatalogReader,
  projectId: string,
  limit: number,
): Promise<readonly StoredDeployment[]> =>
  documents.list<Deployment>(KIND, { index: { name: 'project', value: projectId }, limit })

/** Of this machine first, then those that wait for any, oldest first. Some of them may have expired. */
export async function unfinishedFor({ documents }: CatalogReader, machine: string | null): Promise<readonly StoredDeployment[]> {
  const found: StoredDeployment[] = []
  for (const value of machine === null ? [ANY] : [machine, ANY]) {
    const some = await documents.list<Deployment>(KIND, { index: { name: 'machine', value }, limit: PAGE })
    found.push(...some.toSorted((a, b) => a.body.createdAt - b.body.createdAt))
  }
  return found
}

export async function* allDeployments({ documents }: CatalogReader): AsyncGenerator<StoredDeployment> {
  for (let after: string | undefined; ; ) {
    const page: readonly StoredDeployment[] = await documents.list<Deployment>(KIND, {
      ...(after === undefined ? {} : { after }),
      limit: PAGE,
    })
    yield* page
    after = page.at(-1)?.key
    if (after === undefined || page.length < PAGE) return
  }
}
