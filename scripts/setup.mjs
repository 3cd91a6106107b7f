/**
 * Brings what Imprint needs into node_modules; plain JavaScript, for it runs on Node 20. Called by scripts/node24 alone.
 *
 * npm runs under Node 24 from its first step: packages that want a newer Node than the machine's would make it print warnings.
 * Node 24 is itself a package of the registry without install scripts (newer npm versions warn of those and ask for approval),
 * pinned with its digest in package-lock.json like all others.
 *
 * What it leaves: node_modules/.imprint/node, a link to Node 24, and <need>.lock, a copy of the package-lock.json that was
 * installed, written last: an interrupted run is done again.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { copyFile, link, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'

const WANTED_MAJOR = 24
const root = resolve(import.meta.dirname ?? dirname(new URL(import.meta.url).pathname), '..')
const lockFile = join(root, 'package-lock.json')
const ready = join(root, 'node_modules/.imprint')
const runtimeName = `node-${process.platform}-${process.arch}`
const runtimeInTree = join(root, 'node_modules', runtimeName, 'bin/node')

const need = process.argv[2] === 'develop' ? 'develop' : 'run'
try {
  await alone(setUp)
} catch (error) {
  console.error(`imprint: ${error.message}`)
  process.exit(1)
}

async function setUp() {
  const lock = await readFile(lockFile, 'utf8')
  if (await isReady(lock)) return // another process did it while this one waited
  console.error(`imprint: bringing what it needs into ${join(root, 'node_modules')} …`)
  const scratch = await mkdtemp(join(tmpdir(), 'imprint-setup-'))
  try {
    const node = await runtime(JSON.parse(lock), scratch)
    await rm(ready, { recursive: true, force: true })
    // `install` and not `ci`: it keeps what is there already, so a service that runs from this folder goes on
    await npm(node, root, ['install', '--no-save', ...((await wantsDevelopment()) ? [] : ['--omit=dev'])])
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
  await mkdir(ready, { recursive: true })
  await symlink(existsSync(runtimeInTree) ? join('..', runtimeName, 'bin/node') : process.execPath, join(ready, 'node'))
  if (need === 'develop') await writeFile(join(ready, 'develop.lock'), lock)
  await writeFile(join(ready, 'run.lock'), lock)
}

/** Asked for, or here already: a start of the service takes nothing away from whoever develops in this checkout. */
async function wantsDevelopment() {
  const { devDependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  return need === 'develop' || Object.keys(devDependencies).some((name) => existsSync(join(root, 'node_modules', name)))
}

async function isReady(lock) {
  const installed = await readFile(join(ready, `${need}.lock`), 'utf8').catch(() => null)
  return installed === lock && existsSync(join(ready, 'node'))
}

/** A Node 24 to run npm with, in a place that npm will not change meanwhile. */
async function runtime(lock, scratch) {
  if (Number(process.versions.node.split('.')[0]) >= WANTED_MAJOR) return process.execPath
  const pinned = lock.packages[`node_modules/${runtimeName}`]
  if (!pinned)
    throw new Error(`this machine needs Node ${WANTED_MAJOR}: no package of it for ${process.platform} on ${process.arch}`)
  const copy = join(scratch, 'node')
  if (existsSync(runtimeInTree)) {
    await link(runtimeInTree, copy).catch(() => copyFile(runtimeInTree, copy))
    return copy
  }
  const project = { name: 'imprint-runtime', version: '0.0.0', dependencies: { [runtimeName]: pinned.version } }
  await writeFile(join(scratch, 'package.json'), JSON.stringify(project))
  const packages = { '': project, [`node_modules/${runtimeName}`]: pinned }
  await writeFile(
    join(scratch, 'package-lock.json'),
    JSON.stringify({ ...project, lockfileVersion: 3, requires: true, packages }),
  )
  await npm(process.execPath, scratch, ['ci'])
  return join(scratch, 'node_modules', runtimeName, 'bin/node')
}

/** Runs npm under `node`. What it prints is shown, for it prints little unless something is wrong. */
async function npm(node, folder, args) {
  const path = [dirname(node), process.env.PATH].join(delimiter)
  // npm started this process with its own settings for the project in the environment: they are not for the inner npm
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(package|lifecycle|command|execpath)/.test(name)),
  )
  const child = spawn('npm', [...args, '--no-audit', '--no-fund'], {
    cwd: folder,
    env: { ...env, PATH: path, NO_UPDATE_NOTIFIER: '1' },
    stdio: ['ignore', 2, 2],
  })
  const [code, signal] = await once(child, 'close')
  if (code !== 0)
    throw new Error(`npm ${args.join(' ')} failed in ${folder} (${signal ?? code}): see the lines above; run again to retry`)
}

/**
 * Runs `work` while no other process sets up the same checkout. The lock is a name in the kernel (a Linux abstract socket):
 * it ends with its holder however that dies, and waiting for it is a connection that closes.
 */
async function alone(work) {
  if (process.platform !== 'linux') return work()
  const name = `\0imprint-setup-${createHash('sha256').update(root).digest('hex')}`
  for (;;) {
    const server = createServer()
    const taken = await new Promise((settle, fail) => {
      server.once('listening', () => settle(false))
      server.once('error', (error) => (error.code === 'EADDRINUSE' ? settle(true) : fail(error)))
      server.listen(name)
    })
    if (!taken) {
      const waiting = new Set()
      server.on('connection', (socket) => waiting.add(socket.on('error', () => {})))
      try {
        return await work()
      } finally {
        server.close()
        for (const socket of waiting) socket.destroy()
      }
    }
    const holder = connect(name).on('error', () => {})
    await once(holder.resume(), 'close')
  }
}
