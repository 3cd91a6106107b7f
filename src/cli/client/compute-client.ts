import { isServiceError, ServiceError } from '../../base/errors.ts'
import { type HttpClient, persist, strange } from './http-client.ts'
import { Shape } from './shape.ts'

/** A server of the compute API. */
export interface Instance {
  readonly id: string
  readonly name: string
  /** `ACTIVE`, `SHUTOFF` …: Nova's words. */
  readonly status: string
  /** What is being done to it. */
  readonly task: string | null
  readonly imageId: string | null
  readonly flavor: Pick<Flavor, 'name' | 'vcpus' | 'ramMiB' | 'diskGiB'>
  readonly keyName: string | null
  readonly projectId: string
  readonly forwards: readonly Forward[]
  readonly metadata: Readonly<Record<string, string>>
  readonly locked: boolean
  readonly createdAt: string
  readonly updatedAt: string
  /** Why it is in error. */
  readonly fault: string | null
}
export interface Forward {
  readonly protocol: string
  readonly hostAddress: string
  readonly hostPort: number
  readonly guestPort: number
}
export interface Flavor {
  readonly id: string
  readonly name: string
  readonly vcpus: number
  readonly ramMiB: number
  readonly diskGiB: number
  readonly isPublic: boolean
}
export interface Keypair {
  readonly name: string
  readonly type: string
  readonly fingerprint: string
  readonly publicKey: string
}
export interface InstanceEvent {
  readonly action: string
  readonly requestId: string
  readonly userId: string
  readonly startedAt: string
  readonly failed: boolean
}
export interface NewInstance {
  readonly name: string
  readonly imageId: string
  readonly flavorId: string
  readonly keyName?: string
  /** Base64. */
  readonly userData?: string
  readonly network: 'auto' | 'none'
  readonly metadata: Readonly<Record<string, string>>
  readonly count: number
}

const VERSION = { 'openstack-api-version': 'compute 2.79' }
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
/** Fewer letters of an id are taken for a name only. */
const ID_PREFIX = /^[0-9a-f][0-9a-f-]{3,}$/i
const PAGE = 500
/** A service that restarts is waited for. */
const TRIES = 7

/** The compute API (Nova v2.1). */
export class ComputeClient {
  readonly #http: HttpClient
  readonly #prefix: string

  constructor(http: HttpClient, prefix = '/compute/v2.1') {
    this.#http = http
    this.#prefix = prefix
  }

  async list({ allProjects = false } = {}): Promise<readonly Instance[]> {
    const found: Instance[] = []
    for (let marker: string | undefined; ; marker = found.at(-1)?.id) {
      const query = new URLSearchParams({ limit: String(PAGE), ...(allProjects ? { all_tenants: '1' } : {}) })
      if (marker) query.set('marker', marker)
      const page = new Shape(await this.#ask('GET', `/servers/detail?${query}`), 'answer').shapes('servers').map(instanceFrom)
      found.push(...page)
      if (page.length < PAGE) return found
    }
  }

  async show(id: string): Promise<Instance> {
    return instanceFrom(new Shape(await this.#ask('GET', `/servers/${encodeURIComponent(id)}`), 'answer').shape('server'))
  }

  /** As `show`, while the service is away too. */
  look(id: string, signal: AbortSignal): Promise<Instance> {
    return persist(TRIES, signal, () => this.show(id))
  }

  /**
   * The one instance that a user means by a name, an id, or how an id begins.
   * @throws ServiceError `not-found`; `conflict` listing those that it may be
   */
  async find(wanted: string): Promise<Instance> {
    if (UUID.test(wanted)) {
      try {
        return await this.show(wanted.toLowerCase())
      } catch (error) {
        if (!isServiceError(error, 'not-found')) throw error
      }
    }
    const all = await this.list()
    const named = all.filter(({ name }) => name === wanted)
    const begun = ID_PREFIX.test(wanted) ? all.filter(({ id }) => id.startsWith(wanted.toLowerCase())) : []
    const found = named.length > 0 ? named : begun
    const [only, ...more] = found
    if (!only)
      throw new ServiceError('not-found', `there is no instance "${wanted}" in your project; imprint ps --all shows them`)
    if (more.length === 0) return only
    const lines = found.slice(0, 20).map(({ id, name, status, createdAt }) => `  ${id}  ${name}  ${status}  ${createdAt}`)
    throw new ServiceError(
      'conflict',
      `${found.length} instances may be meant by "${wanted}"; use the id of one:\n${lines.join('\n')}`,
    )
  }

  /** @returns the ids, in the order of their numbers */
  async create(wanted: NewInstance): Promise<readonly string[]> {
    const { name, imageId, flavorId, keyName, userData, network, metadata, count } = wanted
    const server = {
      name,
      imageRef: imageId,
      flavorRef: flavorId,
      networks: network,
      metadata,
      ...(keyName === undefined ? {} : { key_name: keyName }),
      ...(userData === undefined ? {} : { user_data: userData }),
      ...(count > 1 ? { min_count: count, max_count: count, return_reservation_id: true } : {}),
    }
    const answer = new Shape(await this.#ask('POST', '/servers', { server }), 'answer')
    if (count === 1) return [answer.shape('server').text('id')]
    const query = new URLSearchParams({
      reservation_id: answer.text('reservation_id'),
      sort_key: 'launch_index',
      sort_dir: 'asc',
    })
    const made = new Shape(await this.#ask('GET', `/servers?${query}`), 'answer').shapes('servers')
    return made.map((server) => server.text('id'))
  }

  /** @param action `{ reboot: { type: 'HARD' } }` */
  async act(id: string, action: Readonly<Record<string, unknown>>): Promise<unknown> {
    return this.#ask('POST', `/servers/${encodeURIComponent(id)}/action`, action)
  }

  async remove(id: string): Promise<void> {
    await this.#ask('DELETE', `/servers/${encodeURIComponent(id)}`)
  }

  /** @param lines the last so many; absent: all that is kept */
  async consoleLog(id: string, lines?: number): Promise<string> {
    const answer = await this.act(id, { 'os-getConsoleOutput': lines === undefined ? {} : { length: lines } })
    return new Shape(answer, 'answer').text('output')
  }

  /** @returns id of the image, which is being made */
  async backup(id: string, wanted: { readonly name: string; readonly type: string; readonly rotation: number }): Promise<string> {
    const { name, type, rotation } = wanted
    const answer = await this.act(id, { createBackup: { name, backup_type: type, rotation } })
    return new Shape(answer, 'answer').text('image_id')
  }

  /** Where its serial console is opened, once. */
  async consoleUrl(id: string): Promise<string> {
    const body = { remote_console: { protocol: 'serial', type: 'serial' } }
    const answer = await this.#ask('POST', `/servers/${encodeURIComponent(id)}/remote-consoles`, body)
    const url = new Shape(answer, 'answer').shape('remote_console').text('url')
    if (!/^wss?:\/\//.test(url) || !URL.canParse(url)) throw strange('it names a console that is none')
    return url
  }

  async events(id: string): Promise<readonly InstanceEvent[]> {
    const answer = new Shape(await this.#ask('GET', `/servers/${encodeURIComponent(id)}/os-instance-actions`), 'answer')
    return answer.shapes('instanceActions').map((event) => ({
      action: event.text('action'),
      requestId: event.text('request_id'),
      userId: event.text('user_id'),
      startedAt: `${event.text('start_time')}Z`,
      failed: event.textOrNull('message') !== null,
    }))
  }

  async flavors(): Promise<readonly Flavor[]> {
    return new Shape(await this.#ask('GET', '/flavors/detail'), 'answer').shapes('flavors').map((flavor) => ({
      id: flavor.text('id'),
      name: flavor.text('name'),
      vcpus: flavor.number('vcpus'),
      ramMiB: flavor.number('ram'),
      diskGiB: flavor.number('disk'),
      isPublic: flavor.flag('os-flavor-access:is_public'),
    }))
  }

  /** Ascending by name. */
  async keypairs(): Promise<readonly Keypair[]> {
    const answer = new Shape(await this.#ask('GET', '/os-keypairs'), 'answer')
    return answer.shapes('keypairs').map((item) => keypairFrom(item.shape('keypair')))
  }

  async addKeypair(name: string, publicKey: string): Promise<Keypair> {
    const keypair = { name, type: 'ssh', public_key: publicKey }
    return keypairFrom(new Shape(await this.#ask('POST', '/os-keypairs', { keypair }), 'answer').shape('keypair'))
  }

  /** @returns both parts; the service keeps the public one */
  async makeKeypair(name: string): Promise<{ readonly publicKey: string; readonly privateKey: string }> {
    const answer = await this.#ask('POST', '/os-keypairs', { keypair: { name, type: 'ssh' } })
    const keypair = new Shape(answer, 'answer').shape('keypair')
    return { publicKey: keypair.text('public_key'), privateKey: keypair.text('private_key') }
  }

  async removeKeypair(name: string): Promise<void> {
    await this.#ask('DELETE', `/os-keypairs/${encodeURIComponent(name)}`)
  }

  #ask(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<unknown> {
    return this.#http.json(method, this.#prefix + path, body, { headers: VERSION })
  }
}

function instanceFrom(server: Shape): Instance {
  const flavor = server.shape('flavor')
  return {
    id: server.text('id'),
    name: server.text('name'),
    status: server.text('status'),
    task: server.textOrNull('OS-EXT-STS:task_state'),
    imageId: imageOf(server),
    flavor: {
      name: flavor.text('original_name'),
      vcpus: flavor.number('vcpus'),
      ramMiB: flavor.number('ram'),
      diskGiB: flavor.number('disk'),
    },
    keyName: server.textOrNull('key_name'),
    projectId: server.text('tenant_id'),
    forwards: forwardsOf(server.shape('addresses')),
    metadata: server.shape('metadata').otherTexts(new Set()),
    locked: server.flag('locked'),
    createdAt: server.text('created'),
    updatedAt: server.text('updated'),
    fault: server.has('fault') ? server.shape('fault').text('message') : null,
  }
}

/** Of one that starts from a volume it is an empty text. */
const imageOf = (server: Shape): string | null => (server.isShape('image') ? server.shape('image').textOrNull('id') : null)

const forwardsOf = (addresses: Shape): readonly Forward[] =>
  addresses
    .names()
    .flatMap((network) => addresses.shapes(network))
    .flatMap((address) => {
      const forwards = address.has('imprint:forwards') ? address.shapes('imprint:forwards') : []
      return forwards.map((forward) => ({
        protocol: forward.text('protocol'),
        hostAddress: address.text('addr'),
        hostPort: forward.number('host_port'),
        guestPort: forward.number('guest_port'),
      }))
    })

const keypairFrom = (keypair: Shape): Keypair => ({
  name: keypair.text('name'),
  type: keypair.textOrNull('type') ?? 'ssh',
  fingerprint: keypair.text('fingerprint'),
  publicKey: keypair.text('public_key'),
})
