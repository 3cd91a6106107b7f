import { isIPv4, isIPv6 } from 'node:net'
import { type Static, Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import type { NewInstances } from '../../../instances/create-instances.ts'
import { bodyOf } from '../json-body.ts'
import { isYes } from '../paging.ts'
import { blockDevice, disksFrom } from './block-devices.ts'
import { assertFieldsOf } from './fields-by-version.ts'
import type { Call } from './route.ts'
import { count, description, metadata, name, strict, uuid, yesOrNo } from './schemas.ts'
import { ZONE } from './server-json.ts'

/** `POST /servers`: what Nova's schema takes. What this service cannot do is refused below, in words of its own. */

const anyList = Type.Array(Type.Object({}), { maxItems: 64 })
const text = Type.String({ maxLength: 255 })
const tags = Type.Array(Type.String({ minLength: 1, maxLength: 60, pattern: '^[^,/]*$' }), { maxItems: 50 })

const server = Type.Object(
  {
    name,
    imageRef: Type.Optional(text),
    flavorRef: Type.Union([Type.String({ minLength: 1, maxLength: 1024 }), Type.Integer({ minimum: 0 })]),
    adminPass: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    metadata: Type.Optional(metadata),
    networks: Type.Optional(Type.Union([anyList, Type.Literal('none'), Type.Literal('auto')])),
    'OS-DCF:diskConfig': Type.Optional(Type.Union([Type.Literal('AUTO'), Type.Literal('MANUAL')])),
    accessIPv4: Type.Optional(text),
    accessIPv6: Type.Optional(text),
    personality: Type.Optional(anyList),
    availability_zone: Type.Optional(Type.Union([text, Type.Null()])),
    block_device_mapping: Type.Optional(anyList),
    block_device_mapping_v2: Type.Optional(Type.Array(blockDevice, { maxItems: 64 })),
    config_drive: Type.Optional(Type.Union([yesOrNo, Type.Null()])),
    key_name: Type.Optional(Type.Union([Type.String({ minLength: 1, maxLength: 255 }), Type.Null()])),
    min_count: Type.Optional(count(1, 1000)),
    max_count: Type.Optional(count(1, 1000)),
    return_reservation_id: Type.Optional(yesOrNo),
    security_groups: Type.Optional(Type.Array(Type.Object({ name: Type.Optional(text) }, strict), { maxItems: 64 })),
    user_data: Type.Optional(Type.Union([Type.String(), Type.Null()])),
    description: Type.Optional(description),
    tags: Type.Optional(tags),
    trusted_image_certificates: Type.Optional(Type.Union([Type.Array(text, { maxItems: 50 }), Type.Null()])),
    host: Type.Optional(text),
    hypervisor_hostname: Type.Optional(text),
  },
  strict,
)
const uuids = Type.Union([uuid, Type.Array(uuid, { maxItems: 64 })], { description: 'a UUID, or a list of them' })
/** Those of Nova that mean something where there is one host; it takes others and, for want of a filter, heeds none of them. */
const hints = Type.Object({
  group: Type.Optional(uuid),
  same_host: Type.Optional(uuids),
  different_host: Type.Optional(uuids),
})
const parse = bodyOf(
  Type.Object({ server, 'os:scheduler_hints': Type.Optional(hints), 'OS-SCH-HNT:scheduler_hints': Type.Optional(hints) }, strict),
)
type Wanted = Static<typeof server>
type Hints = Static<typeof hints>

/** The first version that has a field. */
const since: Partial<Readonly<Record<keyof Wanted, number>>> = {
  description: 19,
  tags: 52,
  trusted_image_certificates: 63,
  host: 74,
  hypervisor_hostname: 74,
}
/** The first version that has it no more. */
const until: Partial<Readonly<Record<keyof Wanted, number>>> = { personality: 57 }
const NETWORKS_REQUIRED = 37

/** @throws ServiceError `invalid-request` */
function parseFor(minor: number, body: unknown): { readonly server: Wanted; readonly hints: Hints } {
  const { server, 'os:scheduler_hints': newer, 'OS-SCH-HNT:scheduler_hints': older } = parse(body)
  assertFieldsOf(minor, server, { since, until })
  if (minor >= NETWORKS_REQUIRED && server.networks === undefined) {
    refuse("Invalid input for field/attribute server. 'networks' is a required property")
  }
  return { server, hints: { ...older, ...newer } }
}

export interface NewServer {
  readonly wanted: NewInstances
  readonly returnsReservation: boolean
}

/** @throws ServiceError `invalid-request` */
export function newServerFrom(call: Call): NewServer {
  const { server, hints } = parseFor(call.minor, call.body)
  refuseWhatIsNot(server)
  const least = whole(server.min_count, 1)
  return {
    wanted: {
      name: server.name,
      description: server.description ?? null,
      flavorId: lastPart(String(server.flavorRef)),
      ...disksFrom(lastPart(server.imageRef ?? ''), server.block_device_mapping_v2 ?? []),
      keyName: server.key_name ?? null,
      userData: server.user_data ?? null,
      adminPassword: server.adminPass ?? null,
      metadata: server.metadata ?? {},
      tags: server.tags ?? [],
      network: networkFrom(server.networks),
      neighbours: neighboursFrom(hints),
      host: hostFrom(server),
      accessIPv4: addressFrom(server.accessIPv4 ?? '', 'accessIPv4'),
      accessIPv6: addressFrom(server.accessIPv6 ?? '', 'accessIPv6'),
      diskConfig: server['OS-DCF:diskConfig'] ?? 'MANUAL',
      least,
      most: whole(server.max_count, least),
    },
    returnsReservation: isYes(String(server.return_reservation_id ?? false)),
  }
}

/** Each of these would change what the user gets; none is left out in silence. */
function refuseWhatIsNot(server: Wanted): void {
  if ((server.personality as readonly unknown[] | undefined)?.length)
    refuse('personality: files are not injected here; give user_data')
  if (isYes(String(server.config_drive ?? false))) {
    refuse(
      'config_drive: guests are told their data by the disc of NoCloud (label "cidata"), which every instance has; ask for none',
    )
  }
  if (server.block_device_mapping?.length) refuse('block_device_mapping: volumes are named in block_device_mapping_v2')
  if (server.trusted_image_certificates?.length) refuse('trusted_image_certificates: signatures of images are not checked here')
  for (const { name = 'default' } of server.security_groups ?? []) {
    if (name !== 'default') refuse(`Security group ${name} not found: there is none but "default"`)
  }
  const zone = server.availability_zone ?? ZONE
  if (zone.split(':', 1)[0] !== ZONE) refuse(`The requested availability zone is not available: there is none but "${ZONE}"`)
}

/** Named as `nova:HOST`, and since 2.74 by fields of its own. @throws ServiceError `invalid-request` */
function hostFrom({ availability_zone: zone, host, hypervisor_hostname: hypervisor }: Wanted): string | null {
  const named = new Set([zone?.split(':')[1], host, hypervisor].filter((name) => name !== undefined && name !== ''))
  if (named.size > 1) refuse(`No valid host was found: it cannot be on ${[...named].join(' and ')}`)
  return [...named][0] ?? null
}

/** Hints that cannot be followed are refused: https://docs.openstack.org/nova, "Compute schedulers". */
function neighboursFrom({ group, same_host = [], different_host = [], ...others }: Hints): NewInstances['neighbours'] {
  if (group !== undefined) refuse(`Instance group ${group} could not be found: there are no server groups here`)
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) {
    refuse(
      `scheduler hint ${JSON.stringify(unknown.slice(0, 80))}: nothing here heeds it; there are same_host and different_host`,
    )
  }
  const ids = (value: string | readonly string[]) => [value].flat().map((id) => id.toLowerCase())
  return { sameHost: ids(same_host), differentHost: ids(different_host) }
}

function networkFrom(networks: Wanted['networks'] | undefined): 'auto' | 'none' {
  if (networks === 'none' || networks === 'auto') return networks
  if (!networks || networks.length === 0) return 'auto'
  return refuse('networks: there is no network service here; ask for "auto", a network of the instance\'s own, or "none"')
}

/** One spelling for each address of version 6: RFC 5952, as URLs have it. */
export function addressFrom(address: string, field: 'accessIPv4' | 'accessIPv6'): string {
  if (address === '' || (field === 'accessIPv4' && isIPv4(address))) return address
  if (field === 'accessIPv6' && isIPv6(address) && !address.includes('%'))
    return new URL(`http://[${address}]`).hostname.slice(1, -1)
  return refuse(`Invalid input for field/attribute ${field}. Value: ${address.slice(0, 80)}. It is not an address of that kind`)
}

function whole(value: number | string | undefined, byDefault: number): number {
  const number = Number(value ?? byDefault)
  return number >= 1
    ? number
    : refuse(`Invalid input for field/attribute min_count. Value: ${number}. ${number} is less than the minimum of 1`)
}

/** References may be addresses: the id stands last. */
const lastPart = (reference: string): string => reference.split('/').at(-1) ?? ''

function refuse(problem: string): never {
  throw new ServiceError('invalid-request', problem)
}
