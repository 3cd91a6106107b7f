import { KiB } from '../../../../base/units.ts'
import { nameOfUnits } from '../file-name.ts'
import { u64, unitsAt, viewOf } from './record.ts'
import type { Reparse } from './reparse.ts'

/** Files of the system that stand for others, as Interix made them and ntfs-3g does: a magic, then the target or the device. Source: ntfs-3g's manual, "special_files". */
export const INTERIX = { minBytes: 9, maxBytes: 8 * KiB + 8 } as const
const MAGIC = { link: 'IntxLNK\x01', character: 'IntxCHR\0', block: 'IntxBLK\0' } as const
const MAGIC_BYTES = 8
const DEVICE_BYTES = 16

export function interixOf(value: Uint8Array): Reparse {
  const magic = Buffer.from(value.subarray(0, MAGIC_BYTES)).toString('latin1')
  const view = viewOf(value)
  if (magic === MAGIC.link) {
    const target = nameOfUnits(unitsAt(view, MAGIC_BYTES, (value.length - MAGIC_BYTES) >>> 1))
    return target === '' ? {} : { kind: 'symlink', target }
  }
  const kind = magic === MAGIC.character ? 'character' : magic === MAGIC.block ? 'block' : undefined
  if (!kind || value.length !== MAGIC_BYTES + DEVICE_BYTES) return {}
  return { kind, device: { major: u64(view, MAGIC_BYTES), minor: u64(view, MAGIC_BYTES + 8) } }
}
