import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { ServiceError } from '../../base/errors.ts'
import type { ComputeClient, Instance } from '../client/compute-client.ts'
import type { Image } from '../client/image-client.ts'
import { type Context, command } from '../command.ts'
import { openConsole } from '../console/open-console.ts'
import { UsageError } from '../exit-codes.ts'
import { settled } from '../instance-command.ts'
import { portsOf } from '../instance-table.ts'
import { cacheFolder } from '../login-file.ts'
import { formatDuration, Progress } from '../progress.ts'
import { chooseFlavor } from '../run/choose-flavor.ts'
import { FORWARDS_KEY, forwardsFrom } from '../run/forwards.ts'
import { imageToRun } from '../run/image-to-run.ts'
import { type LoginKey, loginKey } from '../run/login-key.ts'
import { untilLogin } from '../run/until-login.ts'
import type { VendorImage } from '../run/vendor-images.ts'
import { safeText, shellWord } from '../safe-text.ts'
import { askLine } from '../secret-prompt.ts'
import type { Session } from '../session.ts'
import { propertyOf } from './image-list.ts'

const SSH_PORT = 22

export const run = command({
  name: 'run',
  summary: 'Start an instance from an image, by one word',
  description: [
    'IMAGE is the name or id of an image, or a distribution: debian, debian-12, ubuntu, ubuntu-22.04, alpine, fedora. Of a distribution the',
    'newest image that is there is taken; where there is none, the one that the vendor publishes is downloaded, held against the',
    'checksums that the vendor publishes over HTTPS, and added. IMPRINT_VENDOR_IMAGES names a mirror, with a folder for each host.',
    'A system of a distribution gets your key (~/.ssh, or one that is made and kept beside your login) and a port of the host that',
    'leads to its SSH; it is waited for until it asks for a login.',
  ].join('\n'),
  arguments: { image: { help: 'name, id, or distribution' } },
  options: {
    name: { type: 'text', value: 'NAME', help: 'name of the instance (default: that of the image, and some letters)' },
    flavor: { type: 'text', value: 'FLAVOR', help: 'its size (default: the smallest that fits; see imprint flavor list)' },
    key: { type: 'text', value: 'NAME', help: 'the public key that lets you in (see imprint keypair list)' },
    userData: { type: 'text', value: 'FILE', help: 'what cloud-init does: a script, or #cloud-config', completes: 'file' },
    port: { type: 'list', value: '[HOST:]GUEST', help: 'a port of the host that leads to one of the guest, as 8080:80' },
    network: { type: 'choice', choices: ['auto', 'none'], help: 'none: it reaches nothing, and nothing reaches it' },
    metadata: { type: 'list', value: 'KEY=VALUE', help: 'a property of the instance' },
    count: { type: 'count', value: 'COUNT', least: 1, most: 1000, help: 'so many of them, numbered' },
    machine: { type: 'flag', help: 'the machine that IMAGE is a snapshot of: size, key, user data … as they were' },
    memory: { type: 'flag', help: 'that machine, and it goes on where it was' },
    console: { type: 'flag', help: 'sit down at its console as it boots' },
    noWait: { type: 'flag', help: 'return as soon as it is asked for' },
    pull: { type: 'flag', help: "download the vendor's image without asking" },
  },
  examples: [
    ['imprint run debian', 'from nothing to a login prompt'],
    ['imprint run debian-12 --name web --port 8080:80 --user-data setup.sh', 'a web server'],
    ['imprint run tiny --console', 'see it boot; Ctrl-] leaves'],
    ['imprint run before-upgrade --memory', 'a snapshot with memory, beside the machine that it is of'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run(options, context) {
    if (options.console && ((options.count ?? 1) > 1 || options.noWait)) {
      throw new UsageError('--console is for one instance, and waits for it; leave --count and --no-wait out')
    }
    const forwards = forwardsFrom(options.port) // refused before anything is done
    if (options.network === 'none' && forwards !== '') throw new UsageError('--port needs a network; leave --network none out')
    const asMachine = options.machine || options.memory
    if (asMachine) refuseWithMachine(options)
    const session = await context.connect()
    const image = await findImage(options.image, options.pull, session, context)
    const started = performance.now()
    const { ids, key } = asMachine
      ? { ids: [await makeAgain(image, options, session)], key: null }
      : await create(image, options, session.compute, context)
    const instances = options.noWait
      ? await Promise.all(ids.map((id) => session.compute.show(id)))
      : await wait(ids, session, context)
    const isSystem = image.properties.os_distro !== undefined && !options.memory // what goes on asks nobody
    if (isSystem && !options.noWait && !options.console) await waitForLogins(instances, session.compute, context)
    report(instances, image, key, performance.now() - started, context)
    if (options.console) {
      const terminal = { input: process.stdin, output: process.stdout }
      await openConsole(session.compute, instances[0]!, terminal, context.out, context.signal)
    }
    return 0
  },
})

interface Options {
  readonly name: string | undefined
  readonly flavor: string | undefined
  readonly key: string | undefined
  readonly userData: string | undefined
  readonly port: readonly string[]
  readonly network: 'auto' | 'none' | undefined
  readonly metadata: readonly string[]
  readonly count: number | undefined
  readonly machine: boolean
  readonly memory: boolean
}

async function findImage(name: string, pull: boolean, session: Session, { out, environment, signal }: Context): Promise<Image> {
  const progress = new Progress(out)
  try {
    return await imageToRun(name, {
      images: session.images,
      imprint: session.imprint,
      cacheFolder: cacheFolder(environment),
      mirror: environment.IMPRINT_VENDOR_IMAGES,
      who: [session.url, session.userId, session.projectId],
      mayFetch: async (vendor) => pull || (process.stdin.isTTY === true && !out.json && (await asksFor(vendor))),
      signal,
      onProgress: (state) => progress.show(state),
    })
  } finally {
    progress.end()
  }
}

async function asksFor({ title, folder }: VendorImage): Promise<boolean> {
  const answer = await askLine(`${title} is not here yet. Download it from ${new URL(folder).host}? [Y/n] `)
  return /^(y|yes|)$/i.test(answer)
}

async function create(
  image: Image,
  options: Options,
  compute: ComputeClient,
  { environment }: Context,
): Promise<{ readonly ids: readonly string[]; readonly key: LoginKey | null }> {
  const { network = 'auto', count = 1 } = options
  const wantsLogin = image.properties.os_distro !== undefined
  const key =
    options.key !== undefined
      ? { name: options.key, privateKeyFile: null }
      : wantsLogin
        ? await loginKey(compute, environment)
        : null
  const forwards = forwardsFrom(options.port, wantsLogin && network === 'auto' ? [SSH_PORT] : [])
  const userData = options.userData === undefined ? undefined : (await readFile(options.userData)).toString('base64')
  const ids = await compute.create({
    name: options.name ?? newName(image),
    imageId: image.id,
    flavorId: chooseFlavor(await compute.flavors(), image, options.flavor).id,
    network,
    count,
    metadata: {
      ...Object.fromEntries(options.metadata.map(propertyOf)),
      ...(forwards === '' ? {} : { [FORWARDS_KEY]: forwards }),
    },
    ...(key === null ? {} : { keyName: key.name }),
    ...(userData === undefined ? {} : { userData }),
  })
  return { ids, key }
}

/** These the machine of a snapshot has of its own. @throws UsageError */
function refuseWithMachine({ key, userData, port, network, metadata, count }: Options): void {
  const given = {
    '--key': key,
    '--user-data': userData,
    '--port': port[0],
    '--network': network,
    '--metadata': metadata[0],
    '--count': count,
  }
  const [misplaced] = Object.entries(given).find(([, value]) => value !== undefined) ?? []
  if (misplaced) throw new UsageError(`${misplaced} does not go with --machine: it is made as it was`)
}

async function makeAgain(image: Image, options: Options, { compute, imprint }: Session): Promise<string> {
  const flavor = options.flavor === undefined ? {} : { flavor: chooseFlavor(await compute.flavors(), image, options.flavor).id }
  return imprint.makeMachine({ image: image.id, name: options.name ?? newName(image), memory: options.memory, ...flavor })
}

const newName = (image: Image): string => `${nameFrom(image)}-${randomBytes(2).toString('hex')}`

/** A name without what a host's name cannot hold. */
const nameFrom = ({ name, id }: Image): string =>
  (name ?? '')
    .replace(/[^A-Za-z0-9.-]+/g, '-')
    .replace(/^[-.]+|[-.]+$/g, '')
    .slice(0, 60) || id.slice(0, 8)

async function wait(ids: readonly string[], { compute }: Session, { out, signal }: Context): Promise<readonly Instance[]> {
  const instances: Instance[] = []
  try {
    for (const id of ids) {
      const instance = await settled(compute, id, signal, ({ name }) => out.progress(`Starting ${safeText(name)} …`))
      if (!instance) throw new ServiceError('conflict', `instance ${id} was deleted while it started`)
      instances.push(instance)
    }
  } finally {
    out.progress('')
  }
  return instances
}

async function waitForLogins(instances: readonly Instance[], compute: ComputeClient, { out, signal }: Context): Promise<void> {
  const started = performance.now()
  try {
    for (const { id, name } of instances) {
      const isReady = await untilLogin(compute, id, signal, (line) => {
        const text = `Starting ${name}, ${formatDuration(performance.now() - started)}  ${line}`
        out.progress(safeText(text).slice(0, out.errorColumns - 1))
      })
      if (!isReady) out.note(`${safeText(name)} runs, and has not asked for a login yet; see: imprint logs ${shellWord(name)}`)
    }
  } finally {
    out.progress('')
  }
}

function report(instances: readonly Instance[], image: Image, key: LoginKey | null, ms: number, { out }: Context): void {
  const answer = instances.map((instance) => ({ ...instance, ssh: key && sshTo(instance, image, key) }))
  out.result(answer, () => {
    for (const instance of answer) {
      const ports = portsOf(instance)
      const name = safeText(instance.name)
      const state = instance.status === 'ACTIVE' ? `runs, after ${formatDuration(ms)}` : 'is starting'
      out.line(`${name} (${instance.id}) ${state}: ${safeText(instance.flavor.name)}${ports ? `, ${ports}` : ''}.`)
      out.note(`  imprint console ${shellWord(instance.name)}`)
      if (instance.ssh) out.note(`  ${safeText(instance.ssh)}`)
    }
  })
}

/** Null where no port leads to its SSH, or nobody knows whom the key lets in. */
function sshTo({ forwards }: Instance, { properties }: Image, { privateKeyFile }: LoginKey): string | null {
  const way = forwards.find(({ protocol, guestPort }) => protocol === 'tcp' && guestPort === SSH_PORT)
  if (!way) return null
  const user = properties.os_admin_user ?? properties.os_distro
  const identity = privateKeyFile === null ? '' : `-i ${privateKeyFile} `
  return `ssh ${identity}-p ${way.hostPort} ${user === undefined ? '' : `${user}@`}${way.hostAddress}`
}
