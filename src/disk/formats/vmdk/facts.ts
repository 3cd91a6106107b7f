import type { BlockSource } from '../../block/block-source.ts'
import type { Fact } from '../format-driver.ts'
import { parseDescriptor } from './descriptor.ts'
import { kindOf, MAX_DESCRIPTOR_BYTES, readSparseHeader, type SparseHeader } from './header.ts'

/** Settings of the descriptor that say something to people, by their names for them. */
const SETTINGS: readonly (readonly [key: string, name: string])[] = [
  ['createType', 'create type'],
  ['CID', 'content id'],
  ['parentCID', 'content id of the parent'],
  ['parentFileNameHint', 'parent'],
  ['ddb.adapterType', 'adapter type'],
  ['ddb.virtualHWVersion', 'virtual hardware version'],
  ['ddb.uuid', 'uuid'],
]
const NO_PARENT = 'ffffffff'

/** @throws ServiceError `invalid-image` | `unsupported` */
export async function factsOf(file: BlockSource): Promise<readonly Fact[]> {
  const isSparse = kindOf(await file.read(0, Math.min(4, file.size))) === 'sparse'
  const h = isSparse ? await readSparseHeader(file) : undefined
  const isText = h ? h.descriptorOffset > 0 : file.size < MAX_DESCRIPTOR_BYTES
  if (!isText) return h ? ofExtent(h) : []
  const text = h ? await file.read(h.descriptorOffset, h.descriptorBytes) : await file.read(0, file.size)
  const { extents } = parseDescriptor(text)
  return [
    ...settingsIn(Buffer.from(text).toString('latin1')),
    ...(extents.length > 1 ? [{ name: 'extents', value: extents.length }] : []),
    ...(h ? ofExtent(h) : []),
  ]
}

function* settingsIn(text: string): Generator<Fact> {
  const lines = new Map<string, string>()
  for (const line of text.split(/\r\n|\n/)) {
    const cut = line.indexOf('=')
    if (cut > 0)
      lines.set(
        line.slice(0, cut).trim().toLowerCase(),
        line
          .slice(cut + 1)
          .trim()
          .replace(/^"(.*)"$/, '$1'),
      )
  }
  for (const [key, name] of SETTINGS) {
    const value = lines.get(key.toLowerCase())
    if (value !== undefined && !(key === 'parentCID' && value.toLowerCase() === NO_PARENT)) yield { name, value }
  }
  const geometry = ['cylinders', 'heads', 'sectors'].map((part) => lines.get(`ddb.geometry.${part}`))
  if (geometry.every((part) => part !== undefined)) yield { name: 'geometry', value: geometry.join('/') }
}

const ofExtent = (h: SparseHeader): Fact[] => [
  { name: 'grain size', value: h.grainBytes, unit: 'bytes' },
  { name: 'compressed', value: h.compressed },
  { name: 'zeroed grains', value: h.zeroGrains },
]
