import { KiB, MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { parseFstab } from '../system/fstab.ts'
import type { Look, NewCheck } from './look.ts'

const HEADER_BYTES = 4 * KiB
const MAGIC_BYTES = 10
/** Sources: Linux kernel/power/swap.c, HIBERNATE_SIG; uswsusp. `S1SUSPEND`, `S2SUSPEND`, `ULSUSPEND`, `LINHIB0001`. */
const hibernated: readonly string[] = ['S1SUSPEND', 'S2SUSPEND', 'ULSUSPEND', 'LINHIB0001']
/** Looked at for what is not zero. */
const MAX_LOOKED_BYTES = 256 * MiB
const READ_BYTES = MiB
const swapFiles: readonly string[] = ['/swapfile', '/swap.img', '/swap', '/swap/swapfile', '/var/swap', '/var/swapfile']

/** A volume that is used as swap. */
export interface SwapVolume {
  /** For people: `partition 2`. */
  readonly name: string
  readonly data: BlockSource
}

/** What was swapped out, in files of the tree and in volumes. */
export const swapOn =
  (volumes: readonly SwapVolume[]): NewCheck =>
  (look) => ({
    async places() {
      for (const { name, data } of volumes) await look.attempt(name, () => swapIn(look, name, data))
      if (look.family !== 'linux') return
      const listed = parseFstab((await look.text('/etc/fstab')) ?? '')
        .filter(({ type, source }) => type === 'swap' && source.startsWith('/') && !source.startsWith('/dev/'))
        .map(({ source }) => source)
      for (const path of new Set([...swapFiles, ...listed]))
        await look.attempt(path, async () => {
          const data = await look.tree.open(path)
          if (data) await swapIn(look, path, data)
        })
    },
  })

async function swapIn(look: Look, where: string, data: BlockSource): Promise<void> {
  if (data.size <= HEADER_BYTES) return
  const magic = Buffer.from(await data.read(HEADER_BYTES - MAGIC_BYTES, MAGIC_BYTES)).toString('latin1')
  const isFile = where.startsWith('/')
  if (hibernated.some((each) => magic.startsWith(each)))
    return look.add('hibernation', isFile ? where : null, `${isFile ? '' : `${where}: `}the memory of a hibernated machine`)
  let looked = 0
  for await (const { offset, length, kind } of data.extents(HEADER_BYTES, data.size - HEADER_BYTES)) {
    if (kind !== 'data') continue
    for (let at = offset; at < offset + length; at += READ_BYTES) {
      look.signal?.throwIfAborted()
      if (looked >= MAX_LOOKED_BYTES)
        return look.unseen(`${where} has more than ${MAX_LOOKED_BYTES} bytes of swap: the rest was not looked at`)
      const bytes = await data.read(at, Math.min(READ_BYTES, offset + length - at))
      looked += bytes.length
      if (isZero(bytes)) continue
      return look.add('swap-content', isFile ? where : null, `${isFile ? '' : `${where}: `}pages that were swapped out`)
    }
  }
}

const zeros = Buffer.alloc(READ_BYTES)
const isZero = (bytes: Uint8Array): boolean => zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0
