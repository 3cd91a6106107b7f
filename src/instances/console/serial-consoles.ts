import { createHash, randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Caller } from '../../base/caller.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { findInstance } from '../find-instance.ts'
import type { InstancePorts } from '../ports.ts'
import { instances } from '../store.ts'

/** Nova's `[consoleauth] token_ttl`: an address may be carried to another program by hand. */
const TOKEN_MS = 600_000
/** Who asks for more before they are used loses the oldest. */
const MAX_TOKENS_OF_ONE = 16
const MAX_TOKENS = 10_000

/** Why a session ended. */
export type ConsoleEnd = 'left' | 'replaced' | 'machine-off' | 'stopping'

/** Somebody at the serial port of a machine. */
export interface ConsoleSession {
  readonly instanceId: string
  readonly userId: string
  /** What the guest says, and what it is told. */
  readonly serial: Duplex
  readonly ended: Promise<ConsoleEnd>
  /** Lets go of the port. */
  end(why: ConsoleEnd): void
}

interface Grant {
  readonly instanceId: string
  readonly projectId: string
  readonly userId: string
  readonly expiresAt: number
}

/**
 * Who may sit at the serial ports, and who does. A token opens one session on one machine, once, within ten minutes; only its hash
 * is kept, in memory, so a restart of the service forgets it. One session to a machine: the newest one wins.
 */
export class SerialConsoles {
  readonly #ports: Pick<InstancePorts, 'catalog' | 'hypervisor' | 'now'>
  /** By the hash of the token; the oldest first. */
  readonly #grants = new Map<string, Grant>()
  readonly #sessions = new Map<string, ConsoleSession>()
  #isClosed = false

  constructor(ports: Pick<InstancePorts, 'catalog' | 'hypervisor' | 'now'>) {
    this.#ports = ports
  }

  /**
   * @returns a token that opens a session
   * @throws ServiceError `not-found`, `denied`; `conflict` where the machine is off, or there is none yet
   */
  async issue(caller: Caller, id: string): Promise<string> {
    const { catalog, now } = this.#ports
    const instance = await findInstance(catalog.documents, caller, id, 'serial-console')
    if (instance.power !== 'running' && instance.power !== 'paused') {
      throw new ServiceError('conflict', `Instance ${instance.id} is not ready: its machine is not on, start it first`)
    }
    this.#makeRoom(instance.id)
    const token = randomBytes(32).toString('base64url')
    const { projectId } = instance
    this.#grants.set(hashOf(token), { instanceId: instance.id, projectId, userId: caller.userId, expiresAt: now() + TOKEN_MS })
    return token
  }

  /**
   * Takes the token, which is good no more, and sits down at the port; who sat there is sent away.
   * @throws ServiceError `unauthenticated`; `conflict` where the machine is off; `unavailable`
   */
  async join(token: string): Promise<ConsoleSession> {
    const { instanceId, projectId, userId } = this.#take(token)
    const instance = await instances.get(this.#ports.catalog.documents, instanceId)
    if (instance?.projectId !== projectId || instance.taskState === 'deleting') throw noSuchToken()
    this.#sessions.get(instanceId)?.end('replaced')
    const serial = await this.#ports.hypervisor.serial(instanceId).catch((error) => {
      throw isServiceError(error, 'not-found') ? noSuchToken() : error
    })
    this.#sessions.get(instanceId)?.end('replaced') // who came while we waited has lost the port to us
    return this.#begin(instanceId, userId, serial)
  }

  get size(): number {
    return this.#sessions.size
  }

  /** Sends everybody away; nobody comes in any more. */
  close(): void {
    this.#isClosed = true
    this.#grants.clear()
    for (const session of this.#sessions.values()) session.end('stopping')
  }

  #begin(instanceId: string, userId: string, serial: Duplex): ConsoleSession {
    const { promise: ended, resolve } = Promise.withResolvers<ConsoleEnd>()
    const session: ConsoleSession = {
      instanceId,
      userId,
      serial,
      ended,
      end: (why) => {
        resolve(why)
        if (this.#sessions.get(instanceId) === session) this.#sessions.delete(instanceId)
        serial.destroy()
      },
    }
    this.#sessions.set(instanceId, session)
    serial.on('error', () => {}) // it closes then
    serial.once('close', () => session.end('machine-off'))
    if (serial.destroyed) session.end('machine-off')
    if (this.#isClosed) session.end('stopping')
    return session
  }

  #take(token: string): Grant {
    const key = hashOf(token)
    const grant = this.#grants.get(key)
    this.#grants.delete(key)
    if (!grant || grant.expiresAt <= this.#ports.now()) throw noSuchToken()
    return grant
  }

  #makeRoom(instanceId: string): void {
    const now = this.#ports.now()
    for (const [key, { expiresAt }] of this.#grants) {
      if (expiresAt > now) break
      this.#grants.delete(key)
    }
    const ofInstance = [...this.#grants].filter(([, grant]) => grant.instanceId === instanceId)
    const oldest =
      ofInstance.length >= MAX_TOKENS_OF_ONE ? ofInstance[0] : this.#grants.size >= MAX_TOKENS ? [...this.#grants][0] : undefined
    if (oldest) this.#grants.delete(oldest[0])
  }
}

const hashOf = (token: string): string => createHash('sha256').update(token).digest('base64')

const noSuchToken = (): ServiceError =>
  new ServiceError('unauthenticated', 'this address of a console is good no more, or was used: ask for another')
