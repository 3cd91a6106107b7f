import { ServiceError } from '../base/errors.ts'
import type { JobLine } from './client/imprint-client.ts'
import type { Shape } from './client/shape.ts'
import type { Context } from './command.ts'
import { safeText } from './safe-text.ts'

export interface JobOutcome {
  readonly result: Shape
  readonly raw: unknown
  readonly faults: readonly { readonly fault: Shape; readonly raw: unknown }[]
}

/** Runs a job of the store, showing how far it is, to its end. Ctrl-C ends the job at the service too. */
export async function followJob(
  name: 'check' | 'collect' | 'rebuild' | 'backup',
  options: Readonly<Record<string, boolean | string>>,
  { out, connect, signal }: Context,
): Promise<JobOutcome> {
  const { imprint } = await connect()
  const faults: { fault: Shape; raw: unknown }[] = []
  let end: Extract<JobLine, { kind: 'result' }> | undefined
  for await (const line of imprint.job(name, options, signal)) {
    if (line.kind === 'result') end = line
    else if (line.kind === 'fault') faults.push(line)
    else if (out.json) out.event({ progress: { phase: line.phase, done: line.done, total: line.total } })
    else out.progress(`${safeText(line.phase)}  ${line.done} of ${line.total}`)
  }
  if (!out.json) out.progress('')
  if (!end) throw new ServiceError('unavailable', 'the job ended without a result; look into the log of the service')
  return { result: end.result, raw: end.raw, faults }
}
