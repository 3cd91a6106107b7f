import { parseDiskChoice } from '../../base/disk-choice.ts'
import { command } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import { safeText } from '../safe-text.ts'

export const netbootAllow = command({
  name: 'netboot allow',
  summary: 'Let a machine that starts from the network be written with an image',
  description: [
    'The machine is known by the MAC of the network card from which it starts. It gets the image once, restarts, and starts from its disk then.',
    'Paths of disks go by the order in which a kernel finds them; a machine with several is better told by --disk. Where that fits several',
    'disks of the machine, or none, nothing is written, and the disks that are there are told.',
    'Whoever shows the MAC of a machine that waits is taken for it: let the network that machines start from hold no others.',
  ].join('\n'),
  arguments: { machine: { help: 'MAC, as 52:54:00:12:34:56, or any: the first machine that asks' } },
  options: {
    image: { type: 'text', value: 'IMAGE', help: 'name or id; must be given' },
    to: { type: 'text', value: 'DEVICE', help: 'the disk of the machine by its path, as /dev/sda' },
    disk: {
      type: 'text',
      value: 'DISK',
      help: 'the disk by what it says of itself: serial=NUMBER, wwn=NUMBER, size=GIB, largest, or smallest',
    },
    hours: { type: 'count', value: 'HOURS', least: 1, most: 720, help: 'how long it may take (default: 24)' },
  },
  examples: [
    ['imprint netboot allow 52:54:00:12:34:56 --image debian-12 --to /dev/sda', 'reinstall that machine at its next start'],
    ['imprint netboot allow 52:54:00:12:34:56 --image debian-12 --disk serial=S4EVNF0M', 'onto that disk, wherever it hangs'],
    ['imprint netboot allow any --image debian-12 --disk smallest --hours 1', 'the next one that starts'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ machine, image: wanted, to, disk, hours }, { out, connect }) {
    const target = to ?? disk
    if (wanted === undefined || target === undefined || (to !== undefined && disk !== undefined)) {
      throw new UsageError('name an --image, and one disk, --to which it goes or by --disk')
    }
    const mac = machine.toLowerCase().replaceAll('-', ':')
    if (mac !== 'any' && !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) {
      throw new UsageError(`"${safeText(machine)}" is no MAC: six pairs of hex digits, as 52:54:00:12:34:56, or any`)
    }
    if (to !== undefined && !to.startsWith('/dev/')) throw new UsageError('--to takes a device of the machine, as /dev/sda')
    parseDiskChoice(target)
    const { images, imprint, url } = await connect()
    const image = await images.find(wanted)
    const fields = { image: image.id, machine: mac === 'any' ? null : mac, target }
    const made = await imprint.allowDeployment({ ...fields, ...(hours === undefined ? {} : { seconds: hours * 3600 }) })
    out.result({ ...made, script: `${url}/netboot/boot.ipxe` }, () => {
      const who = made.machine ?? 'the first machine that asks'
      out.line(`${safeText(target)} of ${safeText(who)} will be written with ${safeText(image.name ?? image.id)} (${made.id}).`)
      out.note(`Start it from the network by iPXE with ${url}/netboot/boot.ipxe; imprint netboot list shows how it goes.`)
    })
    return 0
  },
})
