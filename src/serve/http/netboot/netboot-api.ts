import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { inNetworks } from '../../../base/networks.ts'
import { tokenForMachine } from '../../../images/deployments/deployments.ts'
import type { LeasePorts } from '../../../images/leases/disk-leases.ts'
import type { Api } from '../api.ts'
import { currentBuild, openPart } from './boot-system.ts'

export interface NetbootServices {
  readonly leases: LeasePorts
  /** Of the system that machines start. */
  readonly folder: string
  /** Networks, as CIDR, of those who are answered. */
  readonly networks: readonly string[]
  /** The address of the service, as the machine reaches it. */
  readonly baseUrlOf: (request: FastifyRequest) => string
}

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/
/** What may stand in a line of a script: nothing in it ends a word, names a variable, or starts a comment. */
const PLAIN_URL = /^https?:\/\/[A-Za-z0-9.:[\]/_-]{1,300}$/
/** As text to the screen and to a serial line: servers have either. */
const CONSOLES = 'console=tty0 console=ttyS0,115200'

/**
 * `/netboot`: what machines fetch that start from the network by iPXE, before they can show who they are. The script is told apart by the
 * machine's MAC; the kernel and the initramfs are the same for all, and no secret. https://ipxe.org/scripting
 */
export const netbootApi = (services: NetbootServices): Api => ({
  name: 'netboot',
  prefix: '/netboot',
  register(app) {
    const isMachine = inNetworks(services.networks)
    app.addHook('onRequest', async (request) => {
      if (addressesOf(request).every(isMachine)) return
      throw new ServiceError('denied', 'machines of this network are not started from here: see the setting netbootNetworks')
    })
    const config = { auth: 'none' } as const
    app.get('/boot.ipxe', { config }, (request, reply) => answerScript(services, request, reply))
    registerParts(app, services)
  },
  // iPXE shows the status; people who look see the sentence
  renderError: ({ message }) => ({ contentType: 'text/plain; charset=utf-8', body: `${message}\n` }),
})

/** Of who asks; where a proxy says for whom it asks, of those too, so that one on this machine does not let in everybody. */
function addressesOf({ socket, headers }: FastifyRequest): readonly string[] {
  const told = [headers['x-forwarded-for'] ?? []].flat().flatMap((list) => list.split(','))
  return [socket.remoteAddress ?? '', ...told.map((one) => one.trim())]
}

function registerParts(app: FastifyInstance, { folder }: NetbootServices): void {
  app.route({
    method: ['GET', 'HEAD'],
    url: '/:part',
    config: { auth: 'none' },
    async handler(request, reply) {
      const { part: name } = request.params as { readonly part: string }
      const part = await openPart(folder, name)
      if (!part) throw new ServiceError('not-found', 'there is no such part of the system that machines start from the network')
      void reply.header('content-length', part.bytes).type('application/octet-stream')
      if (request.method === 'GET') return reply.send(part.read())
      await part.close()
      return reply.send('')
    },
  })
}

async function answerScript(services: NetbootServices, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { mac } = request.query as { readonly mac?: unknown }
  void reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store')
  // with hyphens: what stands before a colon is a scheme to iPXE
  if (mac === undefined) return reply.send(`#!ipxe\nchain --autofree boot.ipxe?mac=\${netX/mac:hexhyp}\n`)
  const machine = typeof mac === 'string' ? mac.toLowerCase().replaceAll('-', ':') : ''
  if (!MAC.test(machine)) throw new ServiceError('invalid-request', 'mac: six pairs of hex digits, as 52-54-00-12-34-56')
  return reply.send(await scriptFor(services, request, machine))
}

async function scriptFor(
  { leases, folder, baseUrlOf }: NetbootServices,
  request: FastifyRequest,
  machine: string,
): Promise<string> {
  const build = await currentBuild(folder)
  if (!build) {
    throw new ServiceError(
      'unavailable',
      'no system for machines that start from the network was made yet: imprint netboot build',
    )
  }
  const url = baseUrlOf(request)
  if (!PLAIN_URL.test(url))
    throw new ServiceError('invalid-request', 'the service is asked for by a name that cannot stand in a script')
  const order = await tokenForMachine(leases, machine)
  if (order === 'busy') {
    const why = `${machine} is being written, and was heard of just now; asking again in ten seconds`
    return `#!ipxe\necho Imprint: ${why}\nsleep 10\nchain --autofree boot.ipxe?mac=${machine.replaceAll(':', '-')}\n`
  }
  if (!order) return `#!ipxe\necho Imprint has no image for this machine, ${machine}\nexit\n`
  const arguments_ = [
    `initrd=initramfs-${build}`, // for kernels that firmware starts as a program
    CONSOLES,
    `BOOTIF=${machine}`,
    `imprint.order=${url}/v1/deployments/${order.id}`,
    `imprint.token=${order.token}`,
  ]
  return `#!ipxe\nkernel kernel-${build} ${arguments_.join(' ')}\ninitrd initramfs-${build}\nboot\n`
}
