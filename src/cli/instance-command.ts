import { setTimeout as wait } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../base/errors.ts'
import type { ComputeClient, Instance } from './client/compute-client.ts'
import { cancelled } from './client/http-client.ts'
import { type Command, command } from './command.ts'
import { safeText } from './safe-text.ts'

const LOOK_MS = 300

interface InstanceVerb {
  readonly name: string
  readonly summary: string
  readonly description?: string
  readonly options?: { readonly hard?: string }
  readonly example: string
  /** What it has become: `started`. */
  readonly done: string
  act(compute: ComputeClient, id: string, how: { readonly hard: boolean }): Promise<unknown>
}

/** `start`, `stop` …: one thing done to each instance that is named, and waited for. */
export const instanceCommand = ({ name, summary, description, options, example, done, act }: InstanceVerb): Command =>
  command({
    name,
    summary,
    ...(description === undefined ? {} : { description }),
    arguments: { instances: { help: 'names, ids, or how an id begins', many: true } },
    options: {
      noWait: { type: 'flag', help: 'do not wait until it is done' },
      ...(options?.hard === undefined ? {} : { hard: { type: 'flag', help: options.hard } as const }),
    },
    examples: [[`imprint ${name} web`, example]],
    exits: [3, 4, 5, 7],
    async run(input, { out, connect, signal }) {
      const { compute } = await connect()
      const hard = (input as { readonly hard?: boolean }).hard ?? false
      const found: Instance[] = []
      for (const wanted of input.instances) found.push(await compute.find(wanted)) // all, before anything is done
      for (const { id } of found) await act(compute, id, { hard })
      if (!input.noWait) for (const { id } of found) await settled(compute, id, signal)
      const answer = found.map(({ id, name }) => ({ id, name }))
      out.result(answer, () => {
        for (const { id, name } of found) out.line(`${input.noWait ? 'Asked:' : capital(done)} ${safeText(name)} (${id}).`)
      })
      return 0
    },
  })

/**
 * Waits until nothing is being done to it.
 * @returns as it is then; null where it is gone
 * @throws ServiceError `conflict` with its fault where it has failed; `cancelled`
 */
export async function settled(
  compute: ComputeClient,
  id: string,
  signal: AbortSignal,
  onLook: (instance: Instance) => void = () => {},
): Promise<Instance | null> {
  for (;;) {
    let instance: Instance
    try {
      instance = await compute.look(id, signal)
    } catch (error) {
      if (isServiceError(error, 'not-found')) return null
      throw error
    }
    onLook(instance)
    if (instance.task === null && instance.status !== 'BUILD') {
      if (instance.status !== 'ERROR') return instance
      throw new ServiceError('conflict', `${instance.name} (${id}) is in error: ${instance.fault ?? 'nobody knows why'}`)
    }
    await wait(LOOK_MS, undefined, { signal }).catch(() => {
      throw cancelled()
    })
  }
}

const capital = (text: string): string => text.slice(0, 1).toUpperCase() + text.slice(1)
