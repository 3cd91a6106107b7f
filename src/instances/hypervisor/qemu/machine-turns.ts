import { ServiceError } from '../../../base/errors.ts'

/** What is asked of one machine waits for what must not go on beside it. */
export class MachineTurns {
  readonly #id: string
  /** Of what lasts as long as the hypervisor is open. */
  readonly #closing: AbortSignal
  /** A launch or start under way. */
  #starting: { readonly cut: AbortController; readonly settled: Promise<void> } | null = null
  /** What changes the disks: one after the other. */
  #disks: Promise<void> = Promise.resolve()
  #holding: Promise<void> = Promise.resolve()
  #isHydrating = false
  isRemoved = false

  constructor(id: string, closing: AbortSignal) {
    this.#id = id
    this.#closing = closing
  }

  get isStarting(): boolean {
    return this.#starting !== null
  }

  /** Settles when no launch or start is under way. */
  async started(): Promise<void> {
    await this.#starting?.settled
  }

  /** Settles when what held the processors by now has ended. */
  get held(): Promise<void> {
    return this.#holding
  }

  /** Settles when what changed the disks by now has ended. */
  get disksChanged(): Promise<void> {
    return this.#disks
  }

  /** What changes the disks waits for what was asked before it, a start too. */
  async changeDisks<T>(work: () => Promise<T>): Promise<T> {
    this.#assertNotHydrating()
    const before = Promise.all([this.#disks, this.#starting?.settled])
    const done = before.then(() => {
      if (this.isRemoved) throw wrongPower(this.#id, 'is being removed')
      return work()
    })
    this.#disks = settled(done)
    return done
  }

  /** Has its turn as others that change disks, but nobody waits for it: it may take hours. */
  async hydrate(work: () => Promise<void>): Promise<void> {
    this.#assertNotHydrating()
    const hydrated = this.changeDisks(work)
    this.#isHydrating = true
    await hydrated.finally(() => {
      this.#isHydrating = false
    })
  }

  /** What lets processors stand still or go on: one after the other. */
  async hold<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#holding.then(work)
    this.#holding = settled(done)
    return done
  }

  /** @param work heeds what ends it: a removal, the closing of the hypervisor, the caller */
  async start(signal: AbortSignal | undefined, work: (ended: AbortSignal) => Promise<void>): Promise<void> {
    const cut = new AbortController()
    const over = Promise.withResolvers<void>()
    this.#starting = { cut, settled: over.promise }
    try {
      await work(AbortSignal.any([cut.signal, this.#closing, ...(signal ? [signal] : [])]))
    } finally {
      this.#starting = null
      over.resolve()
    }
  }

  /** Ends a launch or start, and lets nothing begin from now on. Settles when that has ended. */
  async remove(): Promise<void> {
    this.isRemoved = true
    this.#starting?.cut.abort()
    await this.#starting?.settled
  }

  #assertNotHydrating(): void {
    if (this.#isHydrating) throw wrongPower(this.#id, 'is copying a disk; wait for its end, or cancel it')
  }
}

const settled = (work: Promise<unknown>): Promise<void> =>
  work.then(
    () => {},
    () => {},
  )

export const wrongPower = (id: string, how: string): ServiceError =>
  new ServiceError('conflict', `The machine ${id} ${how}.`, { id })
