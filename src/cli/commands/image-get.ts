import { formatBytes } from '../../base/units.ts'
import { command } from '../command.ts'
import { fetchImage } from '../image-get/fetch-image.ts'
import { Progress } from '../progress.ts'
import { safeText } from '../safe-text.ts'

export const imageGet = command({
  name: 'image get',
  summary: 'Download an image, in the format that you want',
  description: [
    'Bytes go into FILE.part first and become FILE when they are whole. A download that broke off goes on where it stopped when',
    'the same command is given again. Without --format the bytes are those that were put in, and their digest is verified.',
  ].join('\n'),
  arguments: {
    image: { help: 'name or id' },
    file: { help: 'where to put it (default: NAME.FORMAT here)', optional: true, completes: 'file' },
  },
  options: {
    format: {
      type: 'text',
      value: 'FORMAT[:SUBFORMAT]',
      help: 'the disk as a file of this format, made on the fly: raw, qcow2, vmdk, vhd, vhdx, vdi, ova (default: as stored)',
    },
    force: { type: 'flag', help: 'replace FILE if it exists' },
  },
  examples: [
    ['imprint image get debian-12', 'as it was put in'],
    ['imprint image get debian-12 disk.qcow2 --format qcow2', 'converted'],
    ['imprint image get debian-12 disk.qcow2 --format qcow2:zstd', 'compressed by the service first, in sight of its progress'],
    ['imprint image get debian-12 disk.vmdk --format vmdk:streamOptimized', 'compressed, for vSphere'],
  ],
  exits: [3, 4, 5, 7],
  async run({ image: wanted, file, format, force }, { out, connect, signal }) {
    const { images } = await connect()
    const image = await images.find(wanted)
    const progress = new Progress(out)
    const path = file ?? fileNameOf(image.name ?? image.id, format?.split(':')[0] ?? image.diskFormat ?? 'img')
    const got = await fetchImage({ images, image, path, format, force, signal, onProgress: (state) => progress.show(state) })
    progress.end()
    out.result({ id: image.id, file: path, ...got }, () => {
      const verified =
        got.verified === null
          ? `no digest of ${format === undefined ? 'it is recorded yet' : 'this format is recorded'} to verify it by`
          : `${got.verified} verified`
      const resumed = got.resumedBytes > 0 ? `, of which ${formatBytes(got.resumedBytes)} were here already` : ''
      out.line(`Wrote ${safeText(path)}: ${formatBytes(got.bytes)}${resumed}; ${verified}.`)
    })
    return 0
  },
})

/** A name from the service as a name of a file here: no folders, nothing hidden, nothing that steers. */
function fileNameOf(name: string, extension: string): string {
  const plain = name
    .normalize('NFC')
    .replace(/[^\p{L}\p{N}._+-]+/gu, '-')
    .replace(/^[.-]+/, '')
    .slice(0, 120)
  const safeExtension = extension.replace(/[^a-z0-9]/g, '')
  return plain.endsWith(`.${safeExtension}`) ? plain : `${plain || 'image'}.${safeExtension}`
}
