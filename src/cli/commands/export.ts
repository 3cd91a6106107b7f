import { formatBytes } from '../../base/units.ts'
import { bytesOf } from '../byte-count.ts'
import type { NewExport } from '../client/imprint-client.ts'
import { command } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import { whenOf } from '../export-table.ts'
import type { Output } from '../output.ts'
import { safeText } from '../safe-text.ts'

export const exportImage = command({
  name: 'export',
  summary: 'Serve the disk of an image, or a blank one, over NBD, for a while',
  description: [
    'Prints an address that QEMU, nbdcopy, nbdinfo and the kernel (qemu-nbd, nbd-client) take. It is a secret: whoever has it reads the',
    'disk, until the export is ended or expires; it is shown this once. The image may be deleted meanwhile.',
    'What is written to a writable export is kept beside the image, and goes when the export ends.',
    'Without TCP (imprint serve --nbd-listen) the address is a unix socket, for the user of the service on its own machine.',
  ].join('\n'),
  arguments: { image: { help: 'name or id', optional: true } },
  options: {
    writable: { type: 'flag', help: 'let clients write; the image stays as it is' },
    size: { type: 'text', value: 'BYTES', help: 'a blank writable disk so large, as 20G, in place of an image' },
    seconds: { type: 'count', value: 'SECONDS', least: 1, most: 2_592_000, help: 'until it ends by itself (default: an hour)' },
  },
  examples: [
    ['imprint export debian-12', 'for an hour'],
    ['imprint export debian-12 --writable', 'to try something on it'],
    ['nbdinfo "$(imprint export debian-12 --seconds 60 --json | jq -r .uris.unix)"', 'in a script'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ image: wanted, writable, size, seconds }, { out, connect }) {
    if ((wanted === undefined) === (size === undefined)) {
      throw new UsageError('name an image, or give the --size of a blank disk; see: imprint export --help')
    }
    const bytes = size === undefined ? undefined : bytesOf('--size', size)
    const { images, imprint, url } = await connect()
    const image = wanted === undefined ? undefined : await images.find(wanted)
    const made = await imprint.createExport({
      ...(image === undefined ? {} : { image: image.id, writable }),
      ...(bytes === undefined ? {} : { size: bytes }),
      ...(seconds === undefined ? {} : { seconds }),
    })
    out.result(made, () => printExport(out, made, url))
    return 0
  },
})

function printExport(out: Output, made: NewExport, url: string): void {
  const uri = uriFor(made, url)
  const quoted = safeText(quote(uri))
  const what = made.image ? safeText(made.image.name ?? made.image.id) : 'A blank disk'
  out.line(safeText(uri))
  out.note(`${what}, ${formatBytes(made.diskBytes)}, until ${whenOf(made.expiresAt)}. Try one of:`)
  out.note(`  nbdinfo ${quoted}`)
  if (made.writable) out.note(`  nbdcopy disk.raw ${quoted}`)
  out.note(`  nbdcopy ${quoted} disk.raw`)
  out.note(`  qemu-img convert -f raw -O qcow2 ${quoted} disk.qcow2`)
  if (uri === made.uris.unix && !isHere(url)) {
    out.note('The service does not listen on TCP for NBD: the address is for its own machine.')
  }
  if (uri === made.uris.unix && made.uris.tcp !== null) out.note(`Over TCP it is ${safeText(made.uris.tcp)}`)
  if (uri.startsWith('nbds:')) out.note('It is in TLS: docs/nbd.md says how these programs are told of certificates and keys.')
  out.note(`End it with: imprint export end ${safeText(made.id)}`)
}

/** The socket where the service is on this machine, which is faster; else TCP, if it is there. */
const uriFor = ({ uris }: NewExport, url: string): string => (isHere(url) ? uris.unix : (uris.tcp ?? uris.unix))
const isHere = (url: string): boolean => /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname)

/** One word for a shell. */
const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`
