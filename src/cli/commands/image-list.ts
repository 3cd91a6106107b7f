import { formatBytes } from '../../base/units.ts'
import type { Image } from '../client/image-client.ts'
import { command } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import { safeText } from '../safe-text.ts'

const toneOf = ({ status }: Image) =>
  status === 'active' ? 'good' : status === 'killed' || status === 'deactivated' ? 'bad' : 'plain'

export const imageList = command({
  name: 'image list',
  summary: 'List the images that you can use',
  description:
    'Your own images, public ones, and those shared with your project once it has accepted them. Community images of others and\nhidden ones are shown when asked for.',
  arguments: {},
  options: {
    name: { type: 'text', value: 'NAME', help: 'only images of this name' },
    status: {
      type: 'choice',
      choices: ['queued', 'saving', 'importing', 'active', 'deactivated', 'killed'],
      help: 'only images in this state',
    },
    visibility: { type: 'choice', choices: ['public', 'private', 'shared', 'community', 'all'], help: 'only images seen so' },
    tag: { type: 'list', value: 'TAG', help: 'only images with this tag' },
    property: { type: 'list', value: 'KEY=VALUE', help: 'only images with this property' },
    owner: { type: 'text', value: 'PROJECT-ID', help: 'only images of this project' },
    shared: {
      type: 'choice',
      choices: ['pending', 'accepted', 'rejected', 'all'],
      help: 'images shared with your project, by its answer',
    },
    hidden: { type: 'flag', help: 'hidden images instead' },
    sort: { type: 'text', value: 'KEY[:asc|desc],…', help: 'order, as name:asc or size:desc (default: newest first)' },
    limit: { type: 'count', value: 'COUNT', least: 1, most: 1_000_000, help: 'no more than so many' },
    long: { type: 'flag', help: 'owner, tags and formats too' },
  },
  examples: [
    ['imprint image list', 'what you can use'],
    ['imprint image list --tag debian --sort name:asc', 'by tag and name'],
    ['imprint image list --visibility shared --shared pending', 'shares that wait for your answer'],
    ['imprint image list --json | jq -r ".[].id"', 'for scripts'],
  ],
  exits: [4, 7],
  async run(options, { out, connect }) {
    const { images } = await connect()
    const found: Image[] = []
    for await (const image of images.list(filtersOf(options), options.limit)) found.push(image)
    out.result(found, () => {
      if (found.length === 0) {
        out.note('No image. Put one in with: imprint image add FILE')
        return
      }
      out.table(found, [
        { title: 'ID', value: ({ id }) => id },
        { title: 'NAME', value: ({ name }) => name },
        { title: 'STATUS', value: ({ status }) => status, tone: toneOf },
        { title: 'VISIBILITY', value: ({ visibility }) => visibility },
        { title: 'SIZE', value: ({ sizeBytes }) => (sizeBytes === null ? null : formatBytes(sizeBytes)), align: 'right' },
        ...(options.long
          ? ([
              { title: 'FORMAT', value: ({ diskFormat }: Image) => diskFormat },
              { title: 'OWNER', value: ({ owner }: Image) => owner },
              { title: 'TAGS', value: ({ tags }: Image) => tags.join(',') },
            ] as const)
          : []),
        { title: 'CREATED', value: ({ createdAt }) => createdAt },
      ])
    })
    return 0
  },
})

interface Wanted {
  readonly name: string | undefined
  readonly status: string | undefined
  readonly visibility: string | undefined
  readonly tag: readonly string[]
  readonly property: readonly string[]
  readonly owner: string | undefined
  readonly shared: string | undefined
  readonly hidden: boolean
  readonly sort: string | undefined
}

function filtersOf(wanted: Wanted): (readonly [string, string])[] {
  const { name, status, visibility, tag, property, owner, shared, hidden, sort } = wanted
  const given: (readonly [string, string | undefined])[] = [
    ['name', name],
    ['status', status],
    ['visibility', visibility ?? (shared ? 'shared' : undefined)],
    ['owner', owner],
    ['member_status', shared],
    ['os_hidden', hidden ? 'true' : undefined],
    ['sort', sort],
    ...tag.map((one) => ['tag', one] as const),
    ...property.map(propertyOf),
  ]
  return given.filter((pair): pair is readonly [string, string] => pair[1] !== undefined)
}

/** `KEY=VALUE` → the pair. @throws UsageError */
export function propertyOf(text: string): readonly [string, string] {
  const equals = text.indexOf('=')
  if (equals < 1) throw new UsageError(`a property is given as KEY=VALUE; not "${safeText(text)}"`)
  return [text.slice(0, equals), text.slice(equals + 1)]
}
