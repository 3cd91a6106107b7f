import { homedir } from 'node:os'
import { join } from 'node:path'
import { formatBytes, GiB } from '../../base/units.ts'
import { ChunkPool } from '../../host/chunk-pool.ts'
import { DiskCache, LEAST_CACHE_BYTES } from '../../host/disk-cache/disk-cache.ts'
import { httpOrigin } from '../../host/http-origin.ts'
import { openRemoteDisk } from '../../host/open-remote-disk.ts'
import { endQuietly, keepExport } from '../attach/kept-export.ts'
import { type ServedDisk, serveDisk } from '../attach/served-disk.ts'
import { bytesOf } from '../byte-count.ts'
import { command } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import type { Environment, Output } from '../output.ts'
import { safeText } from '../safe-text.ts'
import { openSession } from '../session.ts'

const DEFAULT_CACHE_BYTES = 8 * GiB
const SHOW_EVERY_MS = 500

export const attach = command({
  name: 'attach',
  summary: 'Serve the disk of an image on this machine, bringing what is read, and keeping it',
  description: [
    'Machines start from the address that it prints at once: what they read comes over HTTP, chunk by chunk, is verified, and is kept',
    'under --cache by its content, for all images and for later. The disk is read-only; give a machine an overlay to write to.',
    'Runs until it is told to stop (Ctrl-C, SIGTERM), and sits out restarts of the service. The image may be deleted meanwhile.',
  ].join('\n'),
  arguments: { image: { help: 'name or id' } },
  options: {
    socket: { type: 'text', value: 'PATH', help: 'serve NBD on this unix socket (default: a new one)', completes: 'file' },
    cache: {
      type: 'text',
      value: 'DIR',
      help: 'keep chunks in this folder; others may share it (default: ~/.cache/imprint/chunks)',
      completes: 'folder',
    },
    noBootRecord: { type: 'flag', help: 'do not fetch by the record of an earlier start, nor make one: for copies and repairs' },
    cacheBytes: { type: 'text', value: 'BYTES', help: 'at most so many, as 20G; at least 64M (default: 8G)' },
  },
  examples: [
    ['imprint attach debian-12', 'on a new socket'],
    ['imprint attach debian-12 --socket /run/user/1000/debian.sock --cache-bytes 20G', 'on this one'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ image: wanted, socket, cache, cacheBytes, noBootRecord }, { out, connect, signal, environment }) {
    const maxBytes = cacheBytes === undefined ? DEFAULT_CACHE_BYTES : bytesOf('--cache-bytes', cacheBytes)
    if (maxBytes < LEAST_CACHE_BYTES) throw new UsageError(`--cache-bytes must be at least ${formatBytes(LEAST_CACHE_BYTES)}`)
    const session = await connect()
    const image = await session.images.find(wanted)
    await using opened = new AsyncDisposableStack() // closed in reverse, also where the start fails half-way
    const keeps = opened.adopt(await DiskCache.open(cache ?? cacheFolder(environment), maxBytes), (it) => it.close())
    const pool = opened.adopt(new ChunkPool({ disk: keeps }), (it) => it.close())
    const kept = await keepExport(session, image.id, () => openSession(environment))
    opened.defer(() => endQuietly(kept, out))
    const { disk, facts, finish } = await openRemoteDisk({
      origin: httpOrigin(session.http, kept.made.id, kept.signIn),
      pool,
      isBoot: !noBootRecord,
      signal,
    })
    opened.defer(() => disk.close())
    const described = { description: `image ${image.id}`, preferredBytes: facts.chunkBytes }
    const served = opened.adopt(await serveDisk({ disk, ...described, socket, environment, log: logTo(out) }), (it) => it.close())
    tell(out, served, { image: image.id, name: image.name, export: kept.made.id, diskBytes: disk.size })
    opened.defer(finish)
    const stopShowing = showing(out, pool)
    opened.defer(stopShowing)
    const lost = await Promise.race([kept.lost, aborted(signal)])
    stopShowing()
    out.progress('')
    out.note(summaryOf(pool))
    if (lost) throw lost
    return 0
  },
})

const cacheFolder = ({ XDG_CACHE_HOME, HOME }: Environment): string =>
  join(XDG_CACHE_HOME || join(HOME || homedir(), '.cache'), 'imprint', 'chunks')

interface Attached {
  readonly image: string
  readonly name: string | null
  readonly export: string
  readonly diskBytes: number
}

/** For programs a document at once, so that they know where the disk is; for people also what to do with it. */
function tell(out: Output, { uri, socketPath }: ServedDisk, attached: Attached): void {
  out.result({ uri, socket: socketPath, ...attached }, () => {
    const quoted = safeText(`'${uri.replaceAll("'", "'\\''")}'`)
    out.line(safeText(uri))
    out.note(`${safeText(attached.name ?? attached.image)}, ${formatBytes(attached.diskBytes)}, until you stop this. Try one of:`)
    out.note(`  qemu-img create -f qcow2 -F raw -b ${quoted} vm.qcow2 && qemu-system-x86_64 -m 1G -drive file=vm.qcow2`)
    out.note(`  qemu-system-x86_64 -m 1G -snapshot -drive format=raw,file=${quoted}`)
    out.note(`  nbdinfo ${quoted}`)
  })
}

/** Says now and then what came since the last time. @returns ends it */
function showing(out: Output, pool: ChunkPool): () => void {
  let shown = JSON.stringify(pool.counters)
  const timer = setInterval(() => {
    const now = JSON.stringify(pool.counters)
    if (shown === now) return
    shown = now
    if (out.json) out.event({ progress: pool.counters })
    else out.progress(summaryOf(pool))
  }, SHOW_EVERY_MS)
  return () => clearInterval(timer)
}

function summaryOf({ counters: { bytesFetched, chunksFetched, chunksKept } }: ChunkPool): string {
  return `${formatBytes(bytesFetched)} came in ${chunksFetched} chunks; ${chunksKept} were here already`
}

const aborted = (signal: AbortSignal): Promise<undefined> =>
  new Promise((done) => {
    if (signal.aborted) done(undefined)
    else signal.addEventListener('abort', () => done(undefined), { once: true })
  })

function logTo(out: Output) {
  const say = (facts: object, message: string) => {
    const cause = (facts as { err?: unknown }).err
    out.note(safeText(cause instanceof Error ? `${message}: ${cause.message}` : message))
  }
  return { info: () => undefined, warn: say, error: say }
}
