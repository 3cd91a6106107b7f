import { isServiceError, ServiceError } from '../../base/errors.ts'
import { chosenDisk, secondsOf } from '../../host/deploy/choose-disk.ts'
import { assertFits, type Demands } from '../../host/deploy/fit.ts'
import { thisMachine } from '../../host/deploy/this-machine.ts'
import { fileOrigin } from '../../host/http-origin.ts'
import { PATIENCE_MS, patiently } from '../../host/patience.ts'
import { HttpClient } from '../client/http-client.ts'
import { Shape } from '../client/shape.ts'
import { type DeployOutcome, deployImage } from '../deploy/deploy-image.ts'
import type { TransferState } from '../progress.ts'

export interface Order {
  /** `http://host:port/v1/deployments/ID` */
  readonly url: string
  readonly token: string
  /** `/sys` */
  readonly sys: string
  readonly signal: AbortSignal
  readonly onBegin: (image: Demands, target: string) => void
  readonly onProgress: (state: TransferState) => void
}

/** The service is told how it goes so often. */
const REPORT_EVERY_MS = 2000
/** And so often while nothing goes on, since who is heard of no more may be taken for gone: `SILENT_MS` of deployments.ts. */
const ALIVE_EVERY_MS = 10_000

/**
 * What a machine does that started from the network: asks what it is to write and where, writes it, and reports.
 * @throws ServiceError as `deployImage`; it was reported then, where the service could be reached
 */
export async function runOrder(order: Order): Promise<DeployOutcome> {
  const { base, path } = addressOf(order.url)
  const http = new HttpClient(base)
  http.token = order.token
  const report = (body: object) => http.json('POST', `${path}/report`, body)
  const insistently = <T>(work: () => Promise<T>) => patiently(order.signal, PATIENCE_MS, work)
  try {
    const { image, target } = orderFrom(
      await insistently(() => http.json('GET', `${path}/order`, undefined, { signal: order.signal })),
    )
    const outcome = await write(order, http, path, { image, target }, report)
    await insistently(() => report({ state: 'done' }))
    return outcome
  } catch (error) {
    const [message = ''] = (error instanceof Error ? error.message : String(error)).split('\n')
    await report({ state: 'failed', message: message.slice(0, 1000) }).catch(() => undefined) // the screen has it too
    throw error
  } finally {
    http.close()
  }
}

async function write(
  { sys, signal, onBegin, onProgress }: Order,
  http: HttpClient,
  path: string,
  { image, target }: { readonly image: Demands; readonly target: string },
  report: (body: object) => Promise<unknown>,
): Promise<DeployOutcome> {
  using progress = reported(report)
  const disk = await chosenDisk(target, secondsOf(signal))
  onBegin(image, disk)
  const machine = await thisMachine(sys)
  return await deployImage({
    origin: fileOrigin(http, `${path}/file`, noSignIn),
    path: disk,
    isDry: false,
    isGrown: true,
    signal,
    assertFits: async (found) => assertFits(image, machine, found),
    confirm: async () => undefined, // whoever ordered it did
    onProgress(state) {
      onProgress(state)
      progress.is(state)
    },
  })
}

interface Progress extends Disposable {
  is(state: TransferState): void
}

/** Tells the service how it goes, and that the machine is there while nothing goes on, from now until it is disposed of. */
function reported(report: (body: object) => Promise<unknown>): Progress {
  let latest = { doneBytes: 0, totalBytes: 0 }
  let reportedAt = Number.NEGATIVE_INFINITY
  const tell = () => {
    reportedAt = performance.now()
    void report({ state: 'writing', ...latest }).catch(() => undefined) // the next one may come through
  }
  const alive = setInterval(() => {
    if (performance.now() - reportedAt >= ALIVE_EVERY_MS) tell()
  }, ALIVE_EVERY_MS)
  return {
    is({ doneBytes, totalBytes }) {
      if (performance.now() - reportedAt < REPORT_EVERY_MS || totalBytes === null) return
      latest = { doneBytes, totalBytes }
      tell()
    },
    [Symbol.dispose]: () => clearInterval(alive),
  }
}

const noSignIn = () =>
  Promise.reject(new ServiceError('unauthenticated', 'the order is over: start the machine from the network again'))

/** @throws ServiceError `invalid-request` */
function addressOf(url: string): { readonly base: string; readonly path: string } {
  const [, base, path] = /^(https?:\/\/.+?)(\/v1\/deployments\/[A-Za-z0-9_-]+)$/.exec(url) ?? []
  if (base === undefined || path === undefined) throw new ServiceError('invalid-request', `${url} is no address of a deployment`)
  return { base, path }
}

function orderFrom(answer: unknown): { readonly image: Demands; readonly target: string } {
  const order = new Shape(answer, 'order')
  const image = order.shape('image')
  const demands = {
    name: image.textOrNull('name') ?? image.text('id'),
    minDiskGb: image.number('minDiskGb'),
    minRamMb: image.number('minRamMb'),
    properties: image.shape('properties').otherTexts(new Set()),
  }
  return { image: demands, target: order.text('target') }
}

/** For people, where it helps to know more. */
export const reasonOf = (error: unknown): string =>
  isServiceError(error) ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)
