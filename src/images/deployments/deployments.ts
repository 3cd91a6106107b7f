import { randomUUID } from 'node:crypto'
import { type Caller, serviceCaller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { rankOf, suffices } from '../../base/rank.ts'
import type { CatalogReader } from '../../store/catalog/catalog.ts'
import { endExpiredLeases, endLease, type LeasePorts, makeLease } from '../leases/disk-leases.ts'
import { getLease, hasExpired, type LeasedImage, newName } from '../leases/lease.ts'
import {
  allDeployments,
  type Deployment,
  deleteDeployment,
  deploymentsOfProject,
  getDeployment,
  isOpen,
  isToken,
  newToken,
  putDeployment,
  type StoredDeployment,
  unfinishedFor,
} from './deployment.ts'

export type { DeployedImage, Deployment, DeploymentState, StoredDeployment } from './deployment.ts'

export interface DeploymentWish {
  readonly imageId: string
  /** A MAC; null: the first machine that asks. */
  readonly machine: string | null
  /** As `parseDiskChoice` takes it. */
  readonly target: string
  readonly seconds?: number | undefined
}
/** What the machine says of how it goes. */
export type DeploymentReport =
  | { readonly state: 'writing'; readonly doneBytes: number; readonly totalBytes: number }
  | { readonly state: 'done' }
  | { readonly state: 'failed'; readonly message: string }

export const DEPLOYMENT_SECONDS = { default: 24 * 3600, most: 30 * 24 * 3600 } as const
const HOLDER = 'deployment'
/** Of a project, those that are over included: a record each, and a row in each list. */
const MAX_DEPLOYMENTS = 256
/** A machine that writes says so every ten seconds; one that was cut off takes longer than this until it asks from the network again. */
const SILENT_MS = 30_000
/** What is over is shown for so long. */
const KEEP_MS = 7 * 24 * 3_600_000
/** Of what a machine says went wrong. */
const MAX_MESSAGE = 1000

/**
 * `POST /v1/deployments`: lends the image to a machine that will ask from the network.
 * @throws ServiceError `not-found`, `denied`, `unsupported`; `conflict` where the machine waits for another image; `over-quota`
 */
export async function allowDeployment(ports: LeasePorts, caller: Caller, wish: DeploymentWish): Promise<StoredDeployment> {
  if (rankOf(caller) !== 'admin') {
    throw new ServiceError(
      'denied',
      'what is written onto whole machines an administrator orders: any machine that starts from the network may be meant',
    )
  }
  const { projectId } = caller
  if (projectId === null) throw new ServiceError('denied', 'a deployment belongs to a project: ask with a token of one')
  const [id, leaseId] = [randomUUID(), randomUUID()]
  const now = ports.now()
  const seconds = wish.seconds ?? DEPLOYMENT_SECONDS.default
  const made = await ports.catalog.write(async (tx) => {
    // as a part of the service: an export of the project would be listed, and ended, as one
    const terms = { isWritable: false, projectId: null, holder: `${HOLDER} ${id}`, nameHash: newName().nameHash, seconds }
    const { id: imageId, name, minDisk, minRam, properties } = await makeLease(ports, tx, caller, leaseId, wish.imageId, terms)
    await assertRoom(tx, projectId, wish, now)
    return putDeployment(tx, id, {
      projectId,
      image: { id: imageId, name, minDisk, minRam, properties },
      machine: wish.machine,
      target: wish.target,
      leaseId,
      tokenHash: null,
      state: 'waiting',
      doneBytes: 0,
      totalBytes: null,
      message: null,
      createdAt: now,
      updatedAt: now,
      expiresAt: now + seconds * 1000,
    })
  })
  failpoint('lease:made')
  return made
}

/** @throws ServiceError `conflict`, `over-quota` */
async function assertRoom(tx: CatalogReader, projectId: string, { machine }: DeploymentWish, now: number): Promise<void> {
  if ((await deploymentsOfProject(tx, projectId, MAX_DEPLOYMENTS)).length >= MAX_DEPLOYMENTS) {
    const message = `the project has ${MAX_DEPLOYMENTS} deployments already; forget some (imprint netboot forget)`
    throw new ServiceError('over-quota', message, { limit: MAX_DEPLOYMENTS })
  }
  if (machine === null) return
  const taken = (await unfinishedFor(tx, machine)).find(({ body }) => body.machine === machine && isOpen(body, now))
  if (taken) {
    // whose it is is not told: it may be another project's
    throw new ServiceError(
      'conflict',
      `machine ${machine} waits for an image already; forget that first (imprint netboot forget)`,
    )
  }
}

/** Newest first. */
export async function listDeployments({ catalog }: LeasePorts, caller: Caller): Promise<readonly StoredDeployment[]> {
  if (caller.projectId === null || rankOf(caller) === 'none') return []
  const found = await deploymentsOfProject(catalog, caller.projectId, MAX_DEPLOYMENTS)
  return found.toSorted((a, b) => b.body.createdAt - a.body.createdAt)
}

/** @throws ServiceError `not-found` */
export async function showDeployment({ catalog }: LeasePorts, caller: Caller, id: string): Promise<StoredDeployment> {
  const found = await getDeployment(catalog, id)
  const isTheirs =
    found && (rankOf(caller) === 'admin' || (rankOf(caller) !== 'none' && found.body.projectId === caller.projectId))
  if (!isTheirs) throw noSuchDeployment(id)
  return found
}

/** The machine gets no more of the image. @throws ServiceError `not-found`, `denied` */
export async function forgetDeployment(ports: LeasePorts, caller: Caller, id: string): Promise<void> {
  const { body } = await showDeployment(ports, caller, id)
  if (!suffices(rankOf(caller), 'member')) throw new ServiceError('denied', 'deployments are forgotten with the role "member"')
  await ports.catalog.write((tx) => deleteDeployment(tx, id))
  await endLease(ports, caller, body.leaseId)
}

/**
 * A machine asks from the network what to do. Where an image waits for it, it gets a token for that; one that it was given before is
 * good no more. A MAC is no secret: whoever shows it is the machine, unless the machine is being written and was heard of just now.
 * @returns `busy` then: whoever it is asks again later; undefined where nothing waits for it
 */
export async function tokenForMachine(
  { catalog, now }: LeasePorts,
  machine: string,
): Promise<{ readonly id: string; readonly token: string } | 'busy' | undefined> {
  const isForIt = ({ body }: StoredDeployment) => isOpen(body, now())
  const isBusy = ({ body }: StoredDeployment) => body.state === 'writing' && now() - body.updatedAt < SILENT_MS
  const waiting = (await unfinishedFor(catalog, machine)).find(isForIt)
  if (!waiting) return undefined // nothing is written for who only asks
  if (isBusy(waiting)) return 'busy'
  return catalog.write(async (tx) => {
    const found = (await unfinishedFor(tx, machine)).find(isForIt)
    if (!found) return undefined
    if (isBusy(found)) return 'busy'
    const { token, tokenHash } = newToken()
    await putDeployment(tx, found.key, { ...found.body, machine, tokenHash, updatedAt: now() }, found.version)
    return { id: found.key, token }
  })
}

/** What a machine is to do. @throws ServiceError `unauthenticated` */
export async function orderOf({ catalog, now }: LeasePorts, id: string, token: string): Promise<StoredDeployment> {
  const found = await getDeployment(catalog, id)
  if (found && isOpen(found.body, now()) && isToken(found.body, token)) return found
  throw new ServiceError(
    'unauthenticated',
    'this token is for no deployment that waits: start the machine from the network again',
  )
}

/** The image that a machine reads. @throws ServiceError `unauthenticated` */
export async function imageOfDeployment(ports: LeasePorts, id: string, token: string): Promise<LeasedImage> {
  const { body } = await orderOf(ports, id, token)
  const lease = await getLease(ports.catalog, body.leaseId)
  if (!lease?.body.image || hasExpired(lease.body, ports.now())) throw noSuchDeployment(id)
  return lease.body.image
}

/** @throws ServiceError `unauthenticated` */
export async function reportDeployment(ports: LeasePorts, id: string, token: string, report: DeploymentReport): Promise<void> {
  await orderOf(ports, id, token)
  const told = await ports.catalog.write(async (tx) => {
    const found = await getDeployment(tx, id)
    if (!found || !isToken(found.body, token)) return undefined
    const changed = { ...found.body, ...changeBy(found.body, report), updatedAt: ports.now() }
    await putDeployment(tx, id, changed, found.version)
    return changed
  })
  const isOver = told?.state === 'done' || told?.state === 'failed'
  if (isOver) await endLease(ports, serviceCaller('req-deployed'), told.leaseId)
}

function changeBy({ totalBytes, doneBytes }: Deployment, report: DeploymentReport): Partial<Deployment> {
  if (report.state === 'writing') return { state: 'writing', doneBytes: report.doneBytes, totalBytes: report.totalBytes }
  if (report.state === 'done') return { state: 'done', doneBytes: totalBytes ?? doneBytes, tokenHash: null }
  return { state: 'failed', message: report.message.slice(0, MAX_MESSAGE), tokenHash: null }
}

/** Ends what expired, and forgets what has been over for a week. */
export async function sweepDeployments(ports: LeasePorts): Promise<void> {
  await endExpiredLeases(ports, HOLDER)
  const now = ports.now()
  for await (const { key, body, version } of allDeployments(ports.catalog)) {
    const isExpired = body.expiresAt <= now && (body.state === 'waiting' || body.state === 'writing')
    const expired = { ...body, state: 'failed', message: 'it expired', tokenHash: null, updatedAt: now } as const
    if (isExpired) await ports.catalog.write((tx) => putDeployment(tx, key, expired, version))
    else if (!isOpen(body, now) && now - body.updatedAt > KEEP_MS) await ports.catalog.write((tx) => deleteDeployment(tx, key))
    const isLent = !isOpen(body, now) && (await getLease(ports.catalog, body.leaseId)) !== undefined
    if (isLent) await endLease(ports, serviceCaller('req-expiry'), body.leaseId) // a kill came between
  }
}

const noSuchDeployment = (id: string): ServiceError =>
  new ServiceError('not-found', `there is no deployment ${JSON.stringify(id.slice(0, 80))}, or it is over`)
