import { ServiceError } from '../../../base/errors.ts'
import { layerNode } from './disk-nodes.ts'
import type { KeptDisk } from './machine-folder.ts'
import { cancelled, type Run, STATUS } from './run.ts'

/**
 * The layers that a guest writes to, kept the same at another QEMU while it goes on writing: `blockdev-mirror` into an export of the layer's
 * counterpart, only what is in this layer. Each write waits for both, so the other one never falls behind. Source: QEMU
 * docs/interop/live-block-operations.rst.
 */
const PREFIX = 'away'
const awayNode = (slot: number): string => `${PREFIX}${slot}`
/** A layer that was sealed a moment ago has little in it. */
const END_WITHIN_MS = 30_000

export interface Mirrors {
  /** Settles when all are the same, and stay so. */
  readonly ready: Promise<void>
  /** The guest stands still: all ends with both sides the same. @throws ServiceError `unavailable` */
  finish(): Promise<void>
  /** Whatever is left of them. Harmless when done again. */
  clear(): Promise<void>
}

/**
 * @param disks with the socket, from QEMU's folder, where the counterpart of each is exported under the disk's name
 * @throws ServiceError `unavailable`, `cancelled`
 */
export async function mirror(
  run: Run,
  disks: readonly { readonly disk: KeptDisk; readonly socketPath: string }[],
  signal: AbortSignal,
): Promise<Mirrors> {
  const jobs = new Jobs(run, signal)
  const clear = () =>
    clearMirrors(
      run,
      disks.map(({ disk }) => disk),
    ).finally(() => jobs.close())
  try {
    for (const { disk, socketPath } of disks) {
      const node = awayNode(disk.slot)
      const server = { type: 'unix', path: socketPath }
      await run.execute('blockdev-add', { driver: 'nbd', 'node-name': node, server, export: disk.name })
      await run.execute('blockdev-mirror', {
        'job-id': node,
        device: layerNode(disk.slot, disk.layers.at(-1)!),
        target: node,
        sync: 'top',
        'copy-mode': 'write-blocking',
      })
    }
  } catch (error) {
    await clear()
    throw error
  }
  const names = disks.map(({ disk }) => awayNode(disk.slot))
  return {
    ready: jobs.all(names, 'ready'),
    async finish() {
      for (const name of names) await run.execute('block-job-cancel', { device: name, force: false }) // of one that is ready: it ends well
      await jobs.all(names, 'over')
      await clear()
    },
    clear,
  }
}

/** Also of an earlier service. */
export async function clearMirrors(run: Run, disks: readonly KeptDisk[]): Promise<void> {
  const left = (await run.execute('query-block-jobs')).map(({ device }) => device).filter((name) => name.startsWith(PREFIX))
  const jobs = new Jobs(run, AbortSignal.timeout(END_WITHIN_MS))
  try {
    for (const name of left) await run.execute('block-job-cancel', { device: name, force: true }).catch(() => {}) // it has just ended
    await jobs.none(PREFIX)
  } finally {
    jobs.close()
  }
  for (const { slot } of disks) await run.execute('blockdev-del', { 'node-name': awayNode(slot) }).catch(() => {}) // there may be none
}

/** What became of jobs. They dismiss themselves, so their last words are in events only. */
class Jobs {
  readonly #run: Run
  readonly #signal: AbortSignal
  readonly #ready = new Set<string>()
  /** Name → why it failed, null where it did not. */
  readonly #over = new Map<string, string | null>()
  readonly #stop: () => void
  /** The connection was away, and with it their words. */
  #isLost = false
  #heard = Promise.withResolvers<void>()

  constructor(run: Run, signal: AbortSignal) {
    this.#run = run
    this.#signal = signal
    this.#stop = run.onEvent(({ name, data }) => {
      if (name === 'BLOCK_JOB_READY') this.#ready.add(String(data.device))
      else if (name === 'BLOCK_JOB_COMPLETED')
        this.#over.set(String(data.device), typeof data.error === 'string' ? data.error : null)
      else if (name === 'BLOCK_JOB_CANCELLED') this.#over.set(String(data.device), 'it was called off')
      else if (name === STATUS) this.#isLost = true
      else return
      this.#news()
    })
    signal.addEventListener('abort', this.#news)
    void run.ended.then(this.#news)
  }

  /** @throws ServiceError `unavailable` where one of them failed, or ended before its time; `cancelled` */
  async all(names: readonly string[], state: 'ready' | 'over'): Promise<void> {
    for (;;) {
      const heard = this.#heard.promise
      const failed = names.find((name) => this.#over.has(name) && (state === 'ready' || this.#over.get(name) !== null))
      if (failed) {
        const why = this.#over.get(failed) ?? 'it ended early'
        throw new ServiceError('unavailable', `A disk of the machine ${this.#run.id} cannot be copied: ${why}; try again.`, {
          id: this.#run.id,
        })
      }
      if (names.every((name) => (state === 'ready' ? this.#ready : this.#over).has(name))) return
      if (this.#signal.aborted) throw cancelled(this.#run.id)
      if (this.#isLost) throw new ServiceError('unavailable', 'QEMU did not answer for a while; try again.', { id: this.#run.id })
      await this.#run.execute('query-status') // while it answers, there is something to wait for
      await heard
    }
  }

  /** Settles when no job is left whose name begins so. */
  async none(prefix: string): Promise<void> {
    for (;;) {
      const heard = this.#heard.promise
      const left = (await this.#run.execute('query-block-jobs')).filter(({ device }) => device.startsWith(prefix))
      if (left.length === 0) return
      if (this.#signal.aborted) throw cancelled(this.#run.id)
      await heard
    }
  }

  close(): void {
    this.#stop()
    this.#signal.removeEventListener('abort', this.#news)
  }

  readonly #news = (): void => {
    this.#heard.resolve()
    this.#heard = Promise.withResolvers<void>()
  }
}
