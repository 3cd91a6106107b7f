import { connect, type Socket } from 'node:net'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { isObject, readObjects } from './json-lines.ts'

/**
 * QEMU Machine Protocol over a unix socket: the commands that we use, and events. Source: QEMU docs/interop/qmp-spec.txt and
 * qapi/*.json of 7.2. One connection; who needs another one after it ends connects again.
 */

/** The longest answer that is asked for, `query-cpu-definitions`, takes a few hundred KiB. */
const MAX_LINE_BYTES = 4 * MiB
const ANSWER_WITHIN_MS = 30_000

/** Command → what it takes, what it answers. */
export interface QmpCommands {
  readonly 'query-version': [
    undefined,
    { readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number } },
  ]
  readonly 'query-uuid': [undefined, { readonly UUID: string }]
  readonly 'query-status': [undefined, { readonly status: string }]
  readonly 'query-cpu-definitions': [undefined, readonly { readonly name: string }[]]
  readonly 'query-machines': [
    undefined,
    readonly { readonly name: string; readonly alias?: string; readonly 'cpu-max': number }[],
  ]
  /** Allowed before `x-exit-preconfig` (since 6.0), so that no node need stand on the command line. */
  readonly 'blockdev-add': [object, object]
  /** `qdev`: the device's id, or its path in QEMU's tree of objects. */
  readonly 'query-block': [
    undefined,
    readonly {
      readonly qdev?: string
      readonly inserted?: { readonly 'node-name'?: string; readonly backing_file_depth?: number }
    }[],
  ]
  /** Options as at `blockdev-add`, all of them: what is left out goes back to its default. Since 6.1. */
  readonly 'blockdev-reopen': [{ readonly options: readonly object[] }, object]
  /** 7.2 dies of it while a job has ended and was not dismissed: ours dismiss themselves. */
  readonly 'query-named-block-nodes': [{ readonly flat: true }, readonly { readonly 'node-name'?: string }[]]
  readonly device_add: [object, object]
  /** The guest is asked; DEVICE_DELETED tells when it has let go. */
  readonly device_del: [{ readonly id: string }, object]
  readonly 'block-stream': [{ readonly device: string; readonly 'job-id': string }, object]
  readonly 'query-jobs': [
    undefined,
    readonly { readonly id: string; readonly 'current-progress': number; readonly 'total-progress': number }[],
  ]
  readonly 'job-cancel': [{ readonly id: string }, object]
  readonly 'blockdev-del': [{ readonly 'node-name': string }, object]
  /** All of its actions, or none. */
  readonly transaction: [{ readonly actions: readonly BlockSnapshot[] }, object]
  /** Makes the devices of the command line, and goes on as if it had been started with `-S` alone. */
  readonly 'x-exit-preconfig': [undefined, object]
  readonly cont: [undefined, object]
  readonly 'human-monitor-command': [{ readonly 'command-line': string }, string]
  readonly stop: [undefined, object]
  readonly 'blockdev-mirror': [
    {
      readonly 'job-id': string
      readonly device: string
      readonly target: string
      /** Only what is in the topmost layer. */
      readonly sync: 'top'
      readonly 'copy-mode': 'write-blocking'
    },
    object,
  ]
  /** Without force, a mirror that is ready ends when both sides are the same. */
  readonly 'block-job-cancel': [{ readonly device: string; readonly force: boolean }, object]
  readonly 'query-block-jobs': [undefined, readonly { readonly device: string }[]]
  readonly 'nbd-server-start': [{ readonly addr: { readonly type: 'unix'; readonly data: { readonly path: string } } }, object]
  /** Ends its exports, whoever uses them. */
  readonly 'nbd-server-stop': [undefined, object]
  readonly 'block-export-add': [
    {
      readonly type: 'nbd'
      readonly id: string
      readonly 'node-name': string
      readonly name: string
      readonly writable: boolean
    },
    object,
  ]
  readonly 'migrate-set-capabilities': [
    { readonly capabilities: readonly { readonly capability: string; readonly state: boolean }[] },
    object,
  ]
  /** Bytes a second, milliseconds. */
  readonly 'migrate-set-parameters': [{ readonly 'max-bandwidth'?: number; readonly 'downtime-limit'?: number }, object]
  /** Answered when it is under way: how it fares is told by `query-migrate`, and by events where that capability is on. */
  readonly migrate: [{ readonly uri: string }, object]
  /** Answered when QEMU listens there. */
  readonly 'migrate-incoming': [{ readonly uri: string }, object]
  readonly 'migrate-continue': [{ readonly state: string }, object]
  readonly migrate_cancel: [undefined, object]
  readonly 'query-migrate': [undefined, { readonly status?: string; readonly 'error-desc'?: string }]
  readonly quit: [undefined, object]
  readonly system_powerdown: [undefined, object]
  readonly system_reset: [undefined, object]
}

/** `overlay`, which has nothing under it, comes on top of `node`, which from then on is read only. */
export interface BlockSnapshot {
  readonly type: 'blockdev-snapshot'
  readonly data: { readonly node: string; readonly overlay: string }
}

export interface QmpEvent {
  readonly name: string
  readonly data: Readonly<Record<string, unknown>>
}

interface Waiting {
  readonly command: string
  readonly answered: (value: unknown) => void
  readonly failed: (error: Error) => void
  readonly deadline: NodeJS.Timeout
}

/** Whether QEMU said no, so that nothing was done; otherwise nobody knows. */
export const isRefusal = (error: unknown): boolean => isServiceError(error) && error.details.isRefusal === true

export class QmpClient {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #listeners = new Set<(event: QmpEvent) => void>()
  readonly #greeted = Promise.withResolvers<void>()
  readonly #closed = Promise.withResolvers<void>()
  #lastId = 0
  #whyClosed = 'the connection ended'

  private constructor(socket: Socket) {
    this.#socket = socket
    this.#greeted.promise.catch(() => {}) // told to `connect` only
    readObjects(
      socket,
      MAX_LINE_BYTES,
      (object) => this.#take(object),
      (why) => {
        this.#whyClosed = `it sent ${why}`
      },
    )
    socket.on('error', (error) => {
      this.#whyClosed = error.message
    })
    socket.on('close', () => this.#end())
  }

  /**
   * Ready for commands. Events from before are lost.
   * @throws ServiceError `unavailable` where nobody listens, or what listens does not speak QMP; `cancelled`
   */
  static async connect(path: string, signal?: AbortSignal): Promise<QmpClient> {
    const socket = connect({ path })
    const client = new QmpClient(socket)
    const give = () => socket.destroy()
    const tooLate = setTimeout(give, ANSWER_WITHIN_MS)
    signal?.addEventListener('abort', give, { once: true })
    try {
      if (signal?.aborted) give()
      await Promise.race([client.#greeted.promise, client.closed.then(() => Promise.reject(client.#gone('qmp_capabilities')))])
      await client.#send('qmp_capabilities', undefined, ANSWER_WITHIN_MS)
      return client
    } catch (error) {
      client.close()
      if (signal?.aborted) throw new ServiceError('cancelled', 'The connection to QEMU was given up.', {}, { cause: error })
      throw error
    } finally {
      clearTimeout(tooLate)
      signal?.removeEventListener('abort', give)
    }
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed
  }

  /** Settles when the connection has ended. */
  get closed(): Promise<void> {
    return this.#closed.promise
  }

  /** @throws ServiceError `unavailable` where QEMU refuses, the connection ends, or no answer comes in time */
  async execute<Name extends keyof QmpCommands>(
    command: Name,
    args?: QmpCommands[Name][0],
    withinMs = ANSWER_WITHIN_MS,
  ): Promise<QmpCommands[Name][1]> {
    return (await this.#send(command, args, withinMs)) as QmpCommands[Name][1]
  }

  /** @returns ends it */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    this.#whyClosed = 'it was closed here'
    this.#socket.destroy()
  }

  #send(command: string, args: object | undefined, withinMs: number): Promise<unknown> {
    return new Promise((answered, failed) => {
      if (this.#socket.destroyed) {
        failed(this.#gone(command))
        return
      }
      this.#lastId += 1
      const id = this.#lastId
      const deadline = setTimeout(() => {
        this.#waiting.delete(id)
        failed(new ServiceError('unavailable', `QEMU did not answer "${command}" within ${withinMs} ms; try again.`, { command }))
      }, withinMs)
      this.#waiting.set(id, { command, answered, failed, deadline })
      this.#socket.write(`${JSON.stringify({ execute: command, ...(args ? { arguments: args } : {}), id })}\n`)
    })
  }

  #take(object: Readonly<Record<string, unknown>>): void {
    if ('QMP' in object) this.#greeted.resolve()
    else if (typeof object.event === 'string') this.#tell(object.event, object.data)
    else if (typeof object.id === 'number') this.#answer(object.id, object)
  }

  #tell(name: string, data: unknown): void {
    for (const listener of [...this.#listeners]) listener({ name, data: isObject(data) ? data : {} })
  }

  #answer(id: number, object: Readonly<Record<string, unknown>>): void {
    const waiting = this.#waiting.get(id)
    if (!waiting) return // it came too late
    this.#waiting.delete(id)
    clearTimeout(waiting.deadline)
    if ('return' in object) {
      waiting.answered(object.return)
      return
    }
    const why = isObject(object.error) && typeof object.error.desc === 'string' ? object.error.desc : 'no reason given'
    const { command } = waiting
    waiting.failed(
      new ServiceError('unavailable', `QEMU refused "${command}": ${why.slice(0, 500)}`, { command, isRefusal: true }),
    )
  }

  #end(): void {
    this.#closed.resolve()
    this.#greeted.reject(this.#gone('qmp_capabilities'))
    for (const { command, failed, deadline } of this.#waiting.values()) {
      clearTimeout(deadline)
      failed(this.#gone(command))
    }
    this.#waiting.clear()
    this.#listeners.clear()
  }

  #gone(command: string): ServiceError {
    return new ServiceError('unavailable', `QEMU cannot be asked for "${command}": ${this.#whyClosed}.`, { command })
  }
}
