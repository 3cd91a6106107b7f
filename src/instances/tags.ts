import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { changeInstanceAs } from './change-instance.ts'
import type { InstancePorts } from './ports.ts'
import type { InstanceRecord } from './records.ts'

type Ports = Pick<InstancePorts, 'catalog' | 'now'>

/** Nova's limits. */
const MAX_TAGS = 50
const MAX_CHARACTERS = 60

/** @throws ServiceError `not-found`, `denied`, `conflict`; `invalid-request` */
export const replaceTags = (ports: Ports, caller: Caller, id: string, tags: readonly string[]): Promise<InstanceRecord> =>
  changeInstanceAs(ports, caller, id, 'tag', () => {
    assertTags(tags)
    return { tags: [...new Set(tags)] }
  })

/** Adding one that is there succeeds. @throws ServiceError as `replaceTags` */
export const addTag = (ports: Ports, caller: Caller, id: string, tag: string): Promise<InstanceRecord> =>
  changeInstanceAs(ports, caller, id, 'tag', (instance) => {
    const tags = [...new Set([...instance.tags, tag])]
    assertTags(tags)
    return { tags }
  })

/** @throws ServiceError also `not-found` where it has no such tag */
export const removeTag = (ports: Ports, caller: Caller, id: string, tag: string): Promise<InstanceRecord> =>
  changeInstanceAs(ports, caller, id, 'tag', (instance) => {
    if (!instance.tags.includes(tag)) throw noSuchTag(id, tag)
    return { tags: instance.tags.filter((other) => other !== tag) }
  })

export const noSuchTag = (id: string, tag: string): ServiceError =>
  new ServiceError('not-found', `Server ${id} has no tag '${tag.slice(0, MAX_CHARACTERS)}'`)

/** @throws ServiceError `invalid-request` */
export function assertTags(tags: readonly string[]): void {
  if (tags.length > MAX_TAGS)
    throw new ServiceError('invalid-request', `The number of tags exceeded the per-server limit ${MAX_TAGS}`)
  for (const tag of tags) {
    if (tag !== '' && tag.length <= MAX_CHARACTERS && /^[^,/]*$/.test(tag)) continue
    throw new ServiceError('invalid-request', `a tag has 1 to ${MAX_CHARACTERS} characters, and neither "," nor "/"`)
  }
}
