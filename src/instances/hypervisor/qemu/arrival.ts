import { lstat } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import type { Machine } from './machine.ts'
import { files } from './machine-files.ts'
import { joined, type Offer, reply, replyAndHold, type Word } from './migration-link.ts'
import { COMPLETED, untilMigration } from './migration-state.ts'
import type { Run } from './run.ts'

/** Who has machines arrive. */
export interface Arriving {
  /** Its record and files, from what the source says of it. */
  readonly make: (offer: Offer) => Promise<Machine>
  /** It comes no more: its files are gone. */
  readonly onGone: () => void
  readonly onProblem: (error: unknown) => void
}

/**
 * A machine on its way to here. Until the last word it is nothing: a folder that is swept away. What is said to it is taken one after the
 * other, but for pipes.
 */
export class Arrival {
  readonly #arriving: Arriving
  readonly #token: string
  readonly #over = new AbortController()
  #machine: Machine | null = null
  #run: Run | null = null
  #wasPaused = false
  #isFilled = false
  #isHere = false
  #turns: Promise<unknown> = Promise.resolve()

  constructor(token: string, arriving: Arriving) {
    this.#token = token
    this.#arriving = arriving
  }

  /** @throws ServiceError, for the source */
  async hear(word: Word, socket: Socket): Promise<void> {
    if (word.say === 'pipe') return this.#pipe(word.to, socket)
    if (word.say !== 'commit') this.#over.signal.addEventListener('abort', () => socket.destroy(), { once: true }) // a turn must not wait for a source that is slow
    return this.#inTurn(() => this.#take(word, socket))
  }

  /** It comes no more, unless it is here. */
  async withdraw(): Promise<void> {
    this.#over.abort()
    await this.#inTurn(() => this.#forget())
  }

  async #take(word: Exclude<Word, { readonly say: 'pipe' }>, socket: Socket): Promise<void> {
    switch (word.say) {
      case 'prepare':
        await this.#prepare(word.offer, socket)
        replyAndHold(socket, {})
        return
      case 'layer':
        await this.#prepared().receiveLayer(word.disk, word.layer, socket.iterator({ destroyOnReturn: false }))
        break
      case 'wait':
        this.#run = await this.#prepared().awaitMemory(this.#over.signal)
        failpoint('migration:waiting')
        break
      case 'filled':
        await this.#fill(word.console)
        break
      case 'commit':
        await this.#commit()
        reply(socket, { isHere: this.#isHere })
        return
      case 'done':
        await this.#machine?.sourceKnows()
    }
    reply(socket, {})
  }

  async #prepare(offer: Offer, socket: Socket): Promise<void> {
    if (this.#machine) throw new ServiceError('conflict', 'The machine is on its way already.')
    if (this.#over.signal.aborted) throw gone()
    this.#wasPaused = offer.wasPaused
    this.#machine = await this.#arriving.make(offer)
    failpoint('migration:receiving')
    socket.once('close', () => void this.withdraw().catch(this.#arriving.onProblem)) // what it leaves is swept at the next opening
    if (socket.destroyed) throw gone()
  }

  async #pipe(to: 'memory' | { readonly disk: string }, socket: Socket): Promise<void> {
    const path = this.#prepared().folder.inRun(to === 'memory' ? files.incoming : files.copies)
    const stat = await lstat(path).catch(() => null) // QEMU's folder
    if (!stat?.isSocket()) throw gone()
    const there = connect({ path, allowHalfOpen: true })
    joined(socket, there)
    this.#over.signal.addEventListener('abort', () => there.destroy(), { once: true })
  }

  /** All that the source sent is in memory and files here. */
  async #fill(console: string): Promise<void> {
    if (!this.#run) throw gone()
    await untilMigration(this.#run, COMPLETED, this.#over.signal)
    await this.#run.execute('nbd-server-stop')
    await this.#prepared().receiveConsole(Buffer.from(String(console), 'base64'))
    this.#isFilled = true
    failpoint('migration:filled')
  }

  /** From when the record says that it is here, it is; whatever becomes of it then befalls a machine of this hypervisor. */
  async #commit(): Promise<void> {
    if (this.#isHere) return
    try {
      if (!this.#isFilled || !this.#run) return
      await this.#prepared().takeOver(this.#run, { token: this.#token, wasPaused: this.#wasPaused }, () => {
        this.#isHere = true
      })
    } catch (error) {
      this.#arriving.onProblem(error)
    } finally {
      await this.#forget() // so that the answer is the last
    }
  }

  async #forget(): Promise<void> {
    if (this.#isHere) return
    this.#over.abort()
    this.#isFilled = false
    await this.#machine?.remove()
    this.#machine = null
    this.#arriving.onGone()
  }

  #prepared(): Machine {
    if (!this.#machine || (this.#over.signal.aborted && !this.#isHere)) throw gone()
    return this.#machine
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turns.then(work)
    this.#turns = turn.catch(() => {})
    return turn
  }
}

const gone = () => new ServiceError('conflict', 'The machine does not come any more; begin anew.')
