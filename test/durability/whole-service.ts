/** Something of everything that a service keeps, and all of it as its APIs show it, to be compared later. */
import { randomUUID } from 'node:crypto'
import type { KnownAccount, Role } from '../peers/identity-client.ts'
import type { ImageRequests } from './image-requests.ts'

/** @returns what was sent, by image */
export async function populate(
  images: ImageRequests,
  people: Readonly<Record<Role, KnownAccount>>,
  disks: readonly Buffer[],
): Promise<ReadonlyMap<string, Buffer>> {
  const sent = new Map<string, Buffer>()
  for (const [at, bytes] of disks.entries()) {
    const id = randomUUID()
    await images.json('POST', '/image/v2/images', {
      id,
      name: `disk ${at}`,
      disk_format: 'raw',
      container_format: 'bare',
      visibility: 'shared',
      tags: [`tag-${at}`, 'every'],
      os_distro: 'debian',
      min_ram: 512 + at,
    })
    await images.send(id, bytes)
    await images.json('POST', `/image/v2/images/${id}/members`, { member: people.other.projectId })
    sent.set(id, bytes)
  }
  await images.json('POST', '/image/v2/metadefs/namespaces', { namespace: `OS::Test::${randomUUID()}`, visibility: 'public' })
  return sent
}

export async function stateOf(images: ImageRequests): Promise<unknown> {
  const all = [...(await images.list())].sort((a, b) => a.id.localeCompare(b.id))
  const members = await Promise.all(all.map(({ id }) => images.json('GET', `/image/v2/images/${id}/members`)))
  const get = (path: string) => images.json('GET', path)
  return {
    images: all,
    members,
    namespaces: await get('/image/v2/metadefs/namespaces?limit=1000'),
    users: withoutLinks(await get('/identity/v3/users')),
    projects: withoutLinks(await get('/identity/v3/projects')),
    roles: withoutLinks(await get('/identity/v3/role_assignments')),
    usage: await images.usage(),
  }
}

/** Links name the address of the service, which is another after each start. */
function withoutLinks(answer: unknown): unknown {
  if (Array.isArray(answer)) return answer.map(withoutLinks)
  if (typeof answer !== 'object' || answer === null) return answer
  return Object.fromEntries(
    Object.entries(answer)
      .filter(([key]) => key !== 'links')
      .map(([key, value]) => [key, withoutLinks(value)]),
  )
}
