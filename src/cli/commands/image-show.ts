import { isServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import type { Image } from '../client/image-client.ts'
import type { ImagePart, ImageSizes } from '../client/imprint-client.ts'
import { command } from '../command.ts'

export const imageShow = command({
  name: 'image show',
  summary: 'Show one image, with its four sizes',
  description: [
    'virtual    bytes of the disk that a machine sees',
    'allocated  bytes of the file and its parts that are not zeros',
    'stored     what these take in the store, compressed, each chunk counted once',
    'exclusive  the part of that which no other image uses: what deleting it frees',
    'part       what an image of a whole machine holds beside its disk: further disks, memory',
  ].join('\n'),
  arguments: { image: { help: 'name or id' } },
  options: {},
  examples: [['imprint image show debian-12', 'by name; an id works as well']],
  exits: [3, 4, 5, 7],
  async run({ image: wanted }, { out, connect }) {
    const { images, imprint } = await connect()
    const image = await images.find(wanted)
    const sizes = image.sizeBytes === null ? null : await imprint.sizes(image.id).catch(notTold)
    const parts = image.sizeBytes === null ? null : await imprint.parts(image.id).catch(notTold)
    out.result({ ...image, sizes, parts }, () => out.record(rowsOf(image, sizes, parts ?? [])))
    return 0
  },
})

/** An image that others own may keep its sizes to itself, and its parts from who may not download it; one without bytes has none. */
function notTold(error: unknown): null {
  if (isServiceError(error, 'denied') || isServiceError(error, 'conflict') || isServiceError(error, 'not-found')) return null
  throw error
}

function rowsOf(
  image: Image,
  sizes: ImageSizes | null,
  parts: readonly ImagePart[],
): (readonly [string, string | number | null])[] {
  const bytes = (value: number | null): string | null => (value === null ? null : `${formatBytes(value)} (${value})`)
  const rows: (readonly [string, string | number | null])[] = [
    ['id', image.id],
    ['name', image.name],
    ['status', image.status],
    ['visibility', image.visibility],
    ['owner', image.owner],
    ['disk format', image.diskFormat],
    ['file size', bytes(image.sizeBytes)],
    ['virtual', bytes(sizes?.virtualBytes ?? image.virtualBytes)],
    ['allocated', bytes(sizes?.allocatedBytes ?? null)],
    ['stored', bytes(sizes?.storedBytes ?? null)],
    ['exclusive', bytes(sizes?.exclusiveBytes ?? null)],
    ...parts.map(({ name, kind, bytes: size }) => [`part ${name}`, `${kind}, ${bytes(size)}`] as const),
    ['md5', image.checksum],
    [image.hashAlgorithm ?? 'digest', image.hashValue],
    ['min disk', `${image.minDiskGb} GB`],
    ['min memory', `${image.minRamMb} MB`],
    ['protected', image.protected ? 'yes' : 'no'],
    ['hidden', image.hidden ? 'yes' : 'no'],
    ['tags', image.tags.join(', ') || null],
    ['created', image.createdAt],
    ['updated', image.updatedAt],
  ]
  return [...rows, ...Object.entries(image.properties)]
}
