import { isServiceError } from '../base/errors.ts'
import { placeOf } from './hosts.ts'
import { abilitiesOf } from './hypervisor/machine-host.ts'
import type { InstancePorts, NamedHost } from './ports.ts'
import { recoverHost, releaseLeasesOfNobody } from './recover.ts'
import { instances } from './store.ts'

/** Looks for hosts that were missed, each time that they are back; and once, when all are there, for what only then can be told. */
export class HostReturns {
  readonly #ports: InstancePorts
  #look: Promise<void> | null = null
  #hasSeenAll = false

  constructor(ports: InstancePorts) {
    this.#ports = ports
  }

  /** Settles when the hosts that are back have been asked; what is to be done then goes on in the background. One look at a time. */
  look(): Promise<void> {
    this.#look ??= this.#lookNow().finally(() => {
      this.#look = null
    })
    return this.#look
  }

  /** Settles when nobody looks any more. To be called when hosts are not asked any more. */
  async end(): Promise<void> {
    await this.#look?.catch(() => {})
  }

  async #lookNow(): Promise<void> {
    for (const host of this.#ports.hosts) await this.#lookAt(host)
    if (this.#hasSeenAll) return
    const hosts = await this.#allHosts()
    if (hosts.length > 0) this.#hasSeenAll = await ifReached(() => releaseLeasesOfNobody(this.#ports, hosts))
  }

  async #lookAt(host: NamedHost): Promise<void> {
    const { missedHosts } = this.#ports
    if (abilitiesOf(host) === null) missedHosts.add(host.name)
    else if (missedHosts.delete(host.name)) {
      const isReached = await ifReached(() => recoverHost(this.#ports, host)).catch((error: unknown) => {
        missedHosts.add(host.name)
        throw error
      })
      if (!isReached) missedHosts.add(host.name)
    }
  }

  /** All hosts, or none where one is missed. The service's own, where it has no machines and cannot run any, is left out. */
  async #allHosts(): Promise<readonly NamedHost[]> {
    const { catalog, hosts, missedHosts } = this.#ports
    const [own, ...others] = hosts
    if (others.some(({ name }) => missedHosts.has(name))) return []
    if (!missedHosts.has(own.name)) return hosts
    if (others.length === 0 || abilitiesOf(own) !== null) return []
    return (await instances.list(catalog.documents)).some((instance) => placeOf(instance) === null) ? [] : others
  }
}

async function ifReached(ask: () => Promise<void>): Promise<boolean> {
  try {
    await ask()
    return true
  } catch (error) {
    if (isServiceError(error, 'unavailable')) return false
    throw error
  }
}
