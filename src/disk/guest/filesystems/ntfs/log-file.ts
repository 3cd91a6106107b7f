import { isServiceError } from '../../../../base/errors.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { restored, viewOf } from './record.ts'

/** $LogFile begins with two restart pages, of which the later one counts. Source: the Linux-NTFS project, "NTFS Documentation", $LogFile. */
const PAGE_BYTES = 4096
const RESTART_BYTES = 16
const NO_CLIENT = 0xffff
const CLEAN = 2

/** Whether nothing waits in it to be done again. @throws ServiceError `invalid-image` where it cannot be told */
export async function isCleanLog(log: BlockSource): Promise<boolean> {
  if (log.size < 2 * PAGE_BYTES) return log.size === 0
  const pages = await log.read(0, 2 * PAGE_BYTES)
  if (pages.every((byte) => byte === 0xff)) return true // emptied
  let latest: { readonly number: bigint; readonly isClean: boolean } | undefined
  for (const at of [0, PAGE_BYTES]) {
    const found = restartOf(pages.subarray(at, at + PAGE_BYTES))
    if (found && (!latest || found.number > latest.number)) latest = found
  }
  return latest?.isClean ?? false
}

function restartOf(page: Uint8Array): { number: bigint; isClean: boolean } | undefined {
  try {
    const view = viewOf(restored(page, 'RSTR', 'a restart page'))
    const at = view.getUint16(24, true)
    if (at + RESTART_BYTES > PAGE_BYTES) return undefined
    const isClean = view.getUint16(at + 12, true) === NO_CLIENT || (view.getUint16(at + 14, true) & CLEAN) !== 0
    return { number: view.getBigUint64(at, true), isClean }
  } catch (error) {
    if (isServiceError(error)) return undefined
    throw error
  }
}
