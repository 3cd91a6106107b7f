import type { BlockSource } from '../../block/block-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { type Descriptor, type ExtentLine, parseDescriptor } from './descriptor.ts'
import {
  kindOf,
  MAX_DESCRIPTOR_BYTES,
  MAX_DIRECTORY_BYTES,
  readSparseHeader,
  refuse,
  SECTOR_BYTES,
  type SparseHeader,
} from './header.ts'

/** What a disk is made of, in its order. */
export interface Layout {
  readonly virtualBytes: number
  readonly hasParent: boolean
  readonly extents: readonly PlacedExtent[]
}
export type PlacedExtent = SparseExtent | FlatExtent | ZeroExtent

interface Placed {
  /** On the disk, as `length`. */
  readonly start: number
  readonly length: number
}
export interface SparseExtent extends Placed {
  readonly kind: 'sparse'
  readonly file: BlockSource
  readonly header: SparseHeader
}
export interface FlatExtent extends Placed {
  readonly kind: 'flat'
  readonly file: BlockSource
  /** Where it begins in the file. */
  readonly hostOffset: number
}
interface ZeroExtent extends Placed {
  readonly kind: 'zero'
}

/** Of all extents of a disk: their directories are in memory together. */
const MAX_DIRECTORY_ENTRIES = MAX_DIRECTORY_BYTES / 4
const SPARSE_TYPES = ['monolithicsparse', 'streamoptimized', 'twogbmaxextentsparse', '2gbmaxextentsparse']
const FLAT_TYPES = [
  'monolithicflat',
  'twogbmaxextentflat',
  '2gbmaxextentflat',
  'vmfs',
  'vmfsthin',
  'vmfspreallocated',
  'vmfseagerzeroedthick',
]
const EMBEDDED_TYPES = ['monolithicsparse', 'streamoptimized']

/**
 * Reads headers and descriptor: of a file that stands alone, or of a descriptor file and the parts that are given with it.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function readLayout(file: BlockSource, given: OpenOptions | undefined): Promise<Layout> {
  if (given?.snapshot !== undefined) throw refuse('unknown-feature', 'the format has no internal snapshots')
  const kind = kindOf(await file.read(0, Math.min(4, file.size)))
  if (kind === 'cowd' || kind === 'sesparse') throw esxExtent()
  const layout = kind === 'sparse' ? await standingAlone(file) : await inParts(file, given?.parts)
  if (layout.hasParent && !given?.parent) {
    throw refuse(
      'external-reference',
      'the disk is a difference to a parent, which must be given: what the file says of it is never followed',
    )
  }
  if (!layout.hasParent && given?.parent) throw refuse('malformed', 'a parent is given, but the disk is no difference to one')
  return layout
}

const esxExtent = () =>
  refuse(
    'unknown-feature',
    'sparse extents of ESX (COWD, seSparse) are not read; clone the disk, or export it as streamOptimized',
  )

async function standingAlone(file: BlockSource): Promise<Layout> {
  const header = await readSparseHeader(file)
  const isPart = () =>
    refuse(
      'external-reference',
      'the file is one extent of a disk in several files: open their descriptor, with all of them as its parts',
    )
  if (header.descriptorOffset === 0) throw isPart()
  const text = await file.read(header.descriptorOffset, header.descriptorBytes)
  if (text[0] === 0) throw isPart()
  const { createType, hasParent, extents } = parseDescriptor(text)
  const [only] = extents
  if (!EMBEDDED_TYPES.includes(createType) || !only || extents.length > 1 || only.kind !== 'SPARSE') {
    throw refuse(
      'external-reference',
      'the descriptor in a sparse extent must be monolithicSparse or streamOptimized, of one SPARSE extent',
    )
  }
  checkCapacity(only, header)
  const virtualBytes = header.virtualBytes
  return { virtualBytes, hasParent, extents: [{ kind: 'sparse', start: 0, length: virtualBytes, file, header }] }
}

async function inParts(file: BlockSource, parts: ReadonlyMap<string, BlockSource> | undefined): Promise<Layout> {
  if (file.size >= MAX_DESCRIPTOR_BYTES)
    throw refuse('malformed', 'wrong magic, and too long for a descriptor: this is no VMDK file')
  const descriptor = parseDescriptor(await file.read(0, file.size))
  checkKinds(descriptor)
  const extents: PlacedExtent[] = []
  const named = new Set<string>()
  let start = 0
  let directoryEntries = 0
  for (const line of descriptor.extents) {
    const length = line.sectors * SECTOR_BYTES
    if (!Number.isSafeInteger(start + length)) throw refuse('malformed', 'the extents together have 2^53 bytes or more')
    if (line.kind === 'ZERO') extents.push({ kind: 'zero', start, length })
    else {
      if (named.has(line.name)) throw refuse('malformed', `the descriptor names "${line.name}" for two extents`)
      named.add(line.name)
      const part = parts?.get(line.name)
      if (!part) {
        throw refuse(
          'external-reference',
          `the extent "${line.name}" must be given with its descriptor: no file is opened because of its name`,
        )
      }
      const extent = line.kind === 'SPARSE' ? await sparsePart(line, part, start) : flatPart(line, part, start)
      if (extent.kind === 'sparse') directoryEntries += extent.header.directoryEntries
      if (directoryEntries > MAX_DIRECTORY_ENTRIES) {
        throw refuse('malformed', `the grain directories of all extents have more than ${MAX_DIRECTORY_BYTES} bytes`, {
          directoryEntries,
        })
      }
      extents.push(extent)
    }
    start += length
  }
  return { virtualBytes: start, hasParent: descriptor.hasParent, extents }
}

function checkKinds({ createType, hasParent, extents }: Descriptor): void {
  const isSparse = SPARSE_TYPES.includes(createType)
  if (!isSparse && !FLAT_TYPES.includes(createType)) {
    throw refuse('unknown-feature', 'its createType is not read; monolithic and twoGbMaxExtent disks, flat or sparse, are')
  }
  if (!isSparse && hasParent) throw refuse('malformed', 'a flat disk cannot be a difference to a parent')
  const wrong = extents.find(({ kind }) => kind !== 'ZERO' && isSparse !== (kind === 'SPARSE'))
  if (wrong) throw refuse('malformed', `the createType and an extent of kind ${wrong.kind} contradict each other`)
}

async function sparsePart(line: ExtentLine, file: BlockSource, start: number): Promise<SparseExtent> {
  const kind = kindOf(await file.read(0, Math.min(4, file.size)))
  if (kind === 'cowd' || kind === 'sesparse') throw esxExtent()
  if (kind === 'text') throw refuse('malformed', `the part "${line.name}" has the wrong magic: it is no sparse extent`)
  const header = await readSparseHeader(file)
  checkCapacity(line, header)
  return { kind: 'sparse', start, length: header.virtualBytes, file, header }
}

function flatPart({ name, sectors, startSector }: ExtentLine, file: BlockSource, start: number): FlatExtent {
  const [hostOffset, length] = [startSector * SECTOR_BYTES, sectors * SECTOR_BYTES]
  if (hostOffset + length > file.size) {
    throw refuse('truncated', `the part "${name}" ends before its extent does; is the upload complete?`, {
      hostOffset,
      length,
      fileBytes: file.size,
    })
  }
  return { kind: 'flat', start, length, file, hostOffset }
}

function checkCapacity({ sectors }: ExtentLine, { virtualBytes }: SparseHeader): void {
  if (sectors * SECTOR_BYTES === virtualBytes) return
  throw refuse('malformed', 'the descriptor and the header of an extent contradict each other about the capacity', {
    sectors,
    capacity: virtualBytes / SECTOR_BYTES,
  })
}
