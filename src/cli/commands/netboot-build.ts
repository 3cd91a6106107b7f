import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { formatBytes } from '../../base/units.ts'
import { readSettings } from '../../settings/settings.ts'
import { command } from '../command.ts'
import { buildDeploySystem } from '../netboot/deploy-system.ts'
import { safeText } from '../safe-text.ts'

/** Of Debian's packages: names the newest kernel. */
const KERNELS: Readonly<Record<string, string>> = { x64: 'linux-image-amd64', arm64: 'linux-image-arm64' }

export const netbootBuild = command({
  name: 'netboot build',
  summary: 'Make the system that machines start from the network, of Debian’s packages',
  description: [
    'Run it on the machine of the service, with Debian or Ubuntu on it: it needs apt-get, dpkg-deb and depmod, and no root. A kernel, drivers of disks',
    'and network cards, BusyBox, this Node and this Imprint are packed into a kernel and an initramfs that the service hands out from then on.',
  ].join('\n'),
  arguments: {},
  options: {
    into: {
      type: 'text',
      value: 'DIR',
      help: 'where the service looks for it (default: as its setting netboot)',
      completes: 'folder',
    },
    kernel: { type: 'text', value: 'PACKAGE', help: 'package of the kernel (default: linux-image-amd64 or linux-image-arm64)' },
    add: { type: 'list', value: 'PACKAGE', help: 'add the files of this package: firmware, as firmware-bnx2x' },
  },
  examples: [
    ['imprint netboot build', 'for servers of every kind'],
    ['imprint netboot build --kernel linux-image-cloud-amd64', 'smaller, for machines that are virtual'],
  ],
  exits: [7],
  async run({ into, kernel = KERNELS[process.arch] ?? 'linux-image', add }, { out, environment }) {
    const { data, netboot } = readSettings({}, environment)
    const folder = resolve(into ?? (netboot || join(data, 'netboot')))
    const cache = join(environment.XDG_CACHE_HOME || join(environment.HOME || homedir(), '.cache'), 'imprint', 'packages')
    const onStep = (step: string) => (out.json ? out.event({ step }) : out.progress(`${step} …`))
    const built = await buildDeploySystem({ into: folder, cache, kernel, more: add, onStep })
    if (!out.json) out.progress('')
    out.result({ folder, ...built }, () => {
      const size = `kernel ${formatBytes(built.kernelBytes)}, initramfs ${formatBytes(built.initramfsBytes)}`
      out.line(`Made ${safeText(folder)}: Linux ${safeText(built.kernelVersion)}; ${size}.`)
    })
    return 0
  },
})
