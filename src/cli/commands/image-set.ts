import type { PatchStep } from '../client/image-client.ts'
import { command } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import { safeText } from '../safe-text.ts'
import { propertyOf } from './image-list.ts'

export const imageSet = command({
  name: 'image set',
  summary: 'Change what an image says of itself',
  arguments: { image: { help: 'name or id' } },
  options: {
    name: { type: 'text', value: 'NAME', help: 'new name' },
    visibility: { type: 'choice', choices: ['public', 'private', 'shared', 'community'], help: 'who may see it' },
    property: { type: 'list', value: 'KEY=VALUE', help: 'add or replace a property' },
    unsetProperty: { type: 'list', value: 'KEY', help: 'remove a property' },
    minDisk: { type: 'count', value: 'GB', help: 'least disk of a machine' },
    minRam: { type: 'count', value: 'MB', help: 'least memory of a machine' },
    protected: { type: 'flag', help: 'refuse deletion' },
    unprotected: { type: 'flag', help: 'allow deletion again' },
    hidden: { type: 'flag', help: 'leave it out of lists' },
    shown: { type: 'flag', help: 'show it in lists again' },
    owner: { type: 'text', value: 'PROJECT-ID', help: 'give it to another project (administrators)' },
  },
  examples: [
    ['imprint image set debian-12 --name debian-12-old --hidden', 'retire an image without breaking its users'],
    ['imprint image set debian-12 --property os_distro=debian --min-disk 2', 'say what it needs'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run(options, { out, connect }) {
    const { images } = await connect()
    const image = await images.find(options.image)
    const steps = stepsOf(options, image.properties)
    if (steps.length === 0) throw new UsageError('nothing to change; see: imprint image set --help')
    const changed = await images.update(image.id, steps)
    out.result(changed, () => out.line(`Changed ${safeText(changed.name ?? changed.id)} (${changed.id}).`))
    return 0
  },
})

interface Changes {
  readonly name: string | undefined
  readonly visibility: string | undefined
  readonly property: readonly string[]
  readonly unsetProperty: readonly string[]
  readonly minDisk: number | undefined
  readonly minRam: number | undefined
  readonly protected: boolean
  readonly unprotected: boolean
  readonly hidden: boolean
  readonly shown: boolean
  readonly owner: string | undefined
}

function stepsOf(changes: Changes, properties: Readonly<Record<string, string>>): PatchStep[] {
  const fields: Record<string, unknown> = {
    name: changes.name,
    visibility: changes.visibility,
    min_disk: changes.minDisk,
    min_ram: changes.minRam,
    owner: changes.owner,
    protected: oneOf(changes, 'protected', 'unprotected'),
    os_hidden: oneOf(changes, 'hidden', 'shown'),
  }
  const base = Object.entries(fields).filter(([, value]) => value !== undefined)
  return [
    ...base.map(([name, value]): PatchStep => ({ op: 'replace', path: `/${name}`, value })),
    ...changes.property
      .map(propertyOf)
      .map(([key, value]): PatchStep => ({ op: Object.hasOwn(properties, key) ? 'replace' : 'add', path: pointer(key), value })),
    ...changes.unsetProperty.map((key): PatchStep => ({ op: 'remove', path: pointer(key) })),
  ]
}

const pointer = (key: string): string => `/${key.replace(/~/g, '~0').replace(/\//g, '~1')}`

function oneOf(changes: Changes, yes: 'protected' | 'hidden', no: 'unprotected' | 'shown'): boolean | undefined {
  if (changes[yes] && changes[no]) throw new UsageError(`--${yes} and --${no} contradict each other`)
  return changes[yes] ? true : changes[no] ? false : undefined
}
