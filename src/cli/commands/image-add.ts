import { basename } from 'node:path'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import type { Image } from '../client/image-client.ts'
import { type Context, command } from '../command.ts'
import { layersText } from '../disk-file/look-into.ts'
import { memberOption, spoolLimit, spoolOption } from '../disk-file/open-file.ts'
import { UsageError } from '../exit-codes.ts'
import { addFile } from '../image-add/add-file.ts'
import { addUrl } from '../image-add/add-url.ts'
import { parseDigest } from '../image-add/source-digest.ts'
import { cacheFolder } from '../login-file.ts'
import { formatDuration, Progress } from '../progress.ts'
import { safeText } from '../safe-text.ts'
import { propertyOf } from './image-list.ts'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

export const imageAdd = command({
  name: 'image add',
  summary: 'Put an image in, from a file here or from an address on the web',
  description: [
    'The format is found by itself, and compression and archives around the disk are taken off. The disk is kept, as raw, so that',
    'images share what they have in common; what is no format of disks is kept as it is. Of an OVA, the image says what its machine',
    'needs, as far as you say nothing else. Holes are skipped, only chunks that your project does not hold are sent,',
    'compressed, over several connections. Stopped by Ctrl-C or killed, the same command goes on where it was.',
    'With --json, progress is on stderr, one document a line, and stdout has the one answer.',
  ].join('\n'),
  arguments: { source: { help: 'file, or http:// or https:// address', completes: 'file' } },
  options: {
    name: { type: 'text', value: 'NAME', help: 'name of the image (default: that of the file)' },
    visibility: {
      type: 'choice',
      choices: ['private', 'shared', 'community', 'public'],
      help: 'who may see it (default: shared: you, and whom you share it with)',
    },
    property: { type: 'list', value: 'KEY=VALUE', help: 'a property' },
    tag: { type: 'list', value: 'TAG', help: 'a tag' },
    minDisk: { type: 'count', value: 'GB', help: 'least disk of a machine' },
    minRam: { type: 'count', value: 'MB', help: 'least memory of a machine' },
    protected: { type: 'flag', help: 'refuse deletion' },
    id: { type: 'text', value: 'UUID', help: 'id of the image (default: a new one)' },
    osHash: {
      type: 'text',
      value: 'ALGORITHM:HEX',
      help: "the publisher's checksum of the file, as sha256:9f86…; another file is refused",
    },
    asFile: { type: 'flag', help: 'keep the bytes of the file itself, whatever its format' },
    ...memberOption,
    ...spoolOption,
    diskFormat: { type: 'text', value: 'FORMAT', help: 'for an address: its format (default: by its name, else raw)' },
    restart: { type: 'flag', help: 'forget what an earlier run of this command sent' },
  },
  examples: [
    ['imprint image add debian-12.qcow2', 'name and format from the file'],
    [
      'imprint image add debian-12.qcow2 --name debian-12 --os-hash sha512:1a2b… --tag debian',
      'verified against what the publisher says',
    ],
    [
      'imprint image add https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-generic-amd64.qcow2',
      'fetched by the service itself',
    ],
  ],
  exits: [3, 4, 5, 6, 7],
  async run(options, context) {
    if (options.id !== undefined && !UUID.test(options.id)) throw new UsageError('--id takes a lower-case UUID')
    return /^https?:\/\//i.test(options.source) ? fromUrl(options, context) : fromFile(options, context)
  },
})

interface Options {
  readonly source: string
  readonly name: string | undefined
  readonly visibility: string | undefined
  readonly property: readonly string[]
  readonly tag: readonly string[]
  readonly minDisk: number | undefined
  readonly minRam: number | undefined
  readonly protected: boolean
  readonly id: string | undefined
  readonly osHash: string | undefined
  readonly asFile: boolean
  readonly member: string | undefined
  readonly spoolBytes: string | undefined
  readonly diskFormat: string | undefined
  readonly restart: boolean
}

async function fromFile(options: Options, { out, connect, environment, signal }: Context): Promise<0> {
  if (options.diskFormat !== undefined)
    throw new UsageError('--disk-format is for addresses: the format of a file is found by itself')
  const session = await connect()
  const fields = defined({
    id: options.id,
    name: options.name ?? nameOf(options.source),
    visibility: options.visibility,
    protected: options.protected || undefined,
    minDiskGb: options.minDisk,
    minRamMb: options.minRam,
    tags: options.tag.length > 0 ? options.tag : undefined,
    properties: options.property.length > 0 ? Object.fromEntries(options.property.map(propertyOf)) : undefined,
  })
  const progress = new Progress(out)
  const started = performance.now()
  let share = 0
  try {
    const added = await addFile({
      path: options.source,
      imprint: session.imprint,
      cacheFolder: cacheFolder(environment),
      who: [session.url, session.userId, session.projectId],
      fields,
      asFile: options.asFile,
      member: options.member,
      spoolBytes: spoolLimit(options.spoolBytes),
      published: options.osHash === undefined ? undefined : parseDigest(options.osHash),
      restart: options.restart,
      signal,
      onProgress(state) {
        share = state.totalBytes ? state.doneBytes / state.totalBytes : 0
        progress.show(state)
      },
    })
    progress.end()
    const { image, ...transfer } = added
    out.result({ image, transfer }, () => {
      const { layers, sourceFormat, diskFormat } = added
      const found = layersText(layers, sourceFormat)
      const kept = found === diskFormat ? diskFormat : `the disk of the ${safeText(found)}, as ${diskFormat}`
      const resumed = added.resumedBytes > 0 ? ` (${formatBytes(added.resumedBytes)} were dealt with before)` : ''
      out.line(`Added ${safeText(image.name ?? image.id)} (${image.id}): ${formatBytes(image.sizeBytes ?? 0)}, ${kept}.`)
      out.line(
        `${formatBytes(added.dataBytes)} of data${resumed}, sent ${formatBytes(added.movedBytes)} in ${formatDuration(performance.now() - started)}.`,
      )
    })
    return 0
  } catch (error) {
    progress.end()
    if (!isServiceError(error) || !['cancelled', 'unavailable'].includes(error.code)) throw error
    const why = error.code === 'cancelled' ? 'interrupted' : error.message
    const message = `${why}\nStopped at ${Math.floor(share * 100)} %; what was sent is kept for a week. The same command goes on from here; --restart begins anew.`
    throw new ServiceError(error.code, message, error.details, { cause: error })
  }
}

async function fromUrl(options: Options, { out, connect, signal }: Context): Promise<0> {
  const given: readonly (readonly [name: string, isGiven: boolean])[] = [
    ['--as-file', options.asFile],
    ['--member', options.member !== undefined],
    ['--spool-bytes', options.spoolBytes !== undefined],
    ['--os-hash', options.osHash !== undefined],
    ['--restart', options.restart],
  ]
  const misplaced = given.find(([, isGiven]) => isGiven)?.[0]
  if (misplaced) throw new UsageError(`${misplaced} is for files here; the service fetches an address by itself`)
  const { images } = await connect()
  const url = new URL(options.source)
  const file = decodeURIComponent(basename(url.pathname))
  const fields = defined({
    ...Object.fromEntries(options.property.map(propertyOf)),
    id: options.id,
    name: options.name ?? nameOf(file || url.hostname),
    visibility: options.visibility,
    protected: options.protected || undefined,
    min_disk: options.minDisk,
    min_ram: options.minRam,
    tags: options.tag.length > 0 ? options.tag : undefined,
    container_format: /\.ova(\.(gz|xz|bz2|zst))?$/i.test(file) ? 'ova' : 'bare',
    disk_format: options.diskFormat ?? formatByName(file),
  })
  const progress = new Progress(out)
  let image: Image
  try {
    image = await addUrl({ images, url: options.source, fields, signal, onProgress: (state) => progress.show(state) })
  } finally {
    progress.end()
  }
  out.result({ image }, () =>
    out.line(
      `Added ${safeText(image.name ?? image.id)} (${image.id}): ${formatBytes(image.sizeBytes ?? 0)}, ${safeText(image.diskFormat ?? '')}.`,
    ),
  )
  return 0
}

const defined = (fields: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

/** `/tmp/debian-12.qcow2.xz` → `debian-12`. */
function nameOf(path: string): string {
  const file = basename(path)
  const unpacked = file.replace(/\.(gz|bz2|xz|zst|tar|tgz|txz|zip)$/i, '').replace(/\.tar$/i, '')
  return unpacked.replace(/\.(qcow2|raw|img|vmdk|vhdx?|vdi|iso|ova)$/i, '') || file
}

function formatByName(file: string): string {
  const unpacked = file.replace(/\.(gz|bz2|xz|zst|zip|tgz|txz)$/i, '').replace(/\.tar$/i, '') // the service takes that off
  const extension = /\.([a-z0-9]+)$/i.exec(unpacked)?.[1]?.toLowerCase() ?? ''
  if (extension === 'ova') return 'vmdk' // what nearly all of them hold
  return ['qcow2', 'vmdk', 'vhd', 'vhdx', 'vdi', 'iso'].includes(extension) ? extension : 'raw'
}
