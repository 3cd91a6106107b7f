import type { BlockSource } from '../../block/block-source.ts'
import type { Member, StreamOptions } from '../archives/archive.ts'
import { bytesOf, joined, partOf } from '../archives/part.ts'
import { listTar } from '../archives/tar.ts'
import { unpacked } from '../compression/unpacked.ts'
import { type OvfDescriptor, type OvfDisk, type OvfFile, parseDescriptor } from './descriptor.ts'
import { MAX_MANIFEST_BYTES, type Manifest, parseManifest, verifyDigest } from './manifest.ts'
import { type ImageHints, imageHints } from './properties.ts'
import { MAX_XML_BYTES, refuseOvf } from './xml.ts'

/** A package: one machine and its disks. */
export interface Appliance {
  readonly name: string
  readonly disks: readonly ApplianceDisk[]
  /** What an image made of it should say. */
  readonly hints: ImageHints
  readonly descriptor: OvfDescriptor
  /** Whether the package names digests of its files; `verify` compares them. */
  readonly hasManifest: boolean
  readonly warnings: readonly string[]
  /**
   * Reads every file of the package once, and compares its digest with the manifest.
   * @throws ServiceError `invalid-image` where one differs, or is not named; `cancelled`
   */
  verify(options?: StreamOptions): Promise<void>
}
export interface ApplianceDisk {
  readonly id: string
  /** Of the machine's disk, not of its file. */
  readonly capacityBytes: number
  /** A disk format of Glance, as the descriptor says; null where it does not say, or says one that is not known. The file itself may say another. */
  readonly diskFormat: 'vmdk' | 'qcow2' | 'vhd' | 'vhdx' | 'raw' | 'iso' | null
  /** undefined: the disk is empty, and in no file. */
  readonly file: ApplianceFile | undefined
}
export interface ApplianceFile {
  readonly name: string
  /** As it lies in the package. */
  readonly storedBytes: number
  /** The file can be opened where it lies: it is not compressed. Parts of it are put together. */
  readonly isPlain: boolean
  /** Closing it leaves the package open. @throws ServiceError `unsupported` where the file is compressed */
  open(): BlockSource
  /** Unpacked, from its first byte to its last. @param options.maxBytes of what comes out. @throws ServiceError `invalid-image`, `too-large` */
  stream(options: StreamOptions & { readonly maxBytes: number }): AsyncIterable<Uint8Array>
}

/**
 * Opens an OVA: a tar whose first member is the descriptor. Reads headers, descriptor and manifest; the files stay where they are.
 * Source: DSP0243 2.1.1, section "OVA package".
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function openOva(file: BlockSource): Promise<Appliance> {
  const { members } = await listTar(file)
  const [first] = members
  if (!first || !/\.ovf$/i.test(first.name))
    throw refuseOvf('malformed', 'the first member of an OVA must be its descriptor, a file ".ovf"')
  return openPackage(new Map(members.map((member) => [member.name, member])), first.name)
}

/**
 * Opens an OVF package whose files are given by name.
 * @param files the descriptor, one ".ovf", among them; they stay open, and the caller's
 */
export function openOvf(files: ReadonlyMap<string, BlockSource>): Promise<Appliance> {
  const members = new Map([...files].map(([name, source]) => [name, givenFile(name, source)]))
  const descriptors = [...files.keys()].filter((name) => /\.ovf$/i.test(name))
  if (descriptors.length !== 1)
    throw refuseOvf('malformed', `an OVF package has one descriptor, a file ".ovf"; here are ${descriptors.length}`)
  return openPackage(members, descriptors[0] as string)
}

/**
 * Opens an OVF package whose files are members of an archive: those in the folder of its one descriptor, packed or not.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export function openOvfIn(members: readonly Member[]): Promise<Appliance> {
  const descriptors = members.filter(({ name }) => /\.ovf$/i.test(name))
  const [descriptor] = descriptors
  if (!descriptor || descriptors.length > 1)
    throw refuseOvf('malformed', `an OVF package has one descriptor, a file ".ovf"; here are ${descriptors.length}`)
  const folder = descriptor.name.slice(0, descriptor.name.lastIndexOf('/') + 1)
  const beside = members.filter(({ name }) => name.startsWith(folder) && !name.includes('/', folder.length))
  const plainName = ({ name }: Member) => name.slice(folder.length)
  return openPackage(new Map(beside.map((member) => [plainName(member), member])), plainName(descriptor))
}

type PackageFile = Pick<Member, 'name' | 'bytes' | 'storedBytes' | 'isPlain' | 'open' | 'stream'>
const givenFile = (name: string, source: BlockSource): PackageFile => ({
  name,
  bytes: source.size,
  storedBytes: source.size,
  isPlain: true,
  open: () => partOf(source, 0, source.size),
  stream: (options) => bytesOf(source, options),
})

async function openPackage(members: ReadonlyMap<string, PackageFile>, descriptorName: string): Promise<Appliance> {
  const sparse = [...members.values()].find(({ isPlain, bytes, storedBytes }) => isPlain && bytes !== storedBytes)
  if (sparse) throw refuseOvf('unsupported', `${shown(sparse.name)} is a sparse file of GNU tar, which no package has`)
  const others = [...members.keys()].filter((name) => name !== descriptorName)
  const second = others.find((name) => /\.ovf$/i.test(name))
  if (second !== undefined)
    throw refuseOvf('malformed', `the package has two descriptors, ${shown(descriptorName)} and ${shown(second)}`)
  const manifests = others.filter((name) => /\.mf$/i.test(name))
  if (manifests.length > 1) throw refuseOvf('malformed', `the package has ${manifests.length} manifests; one is possible`)
  const descriptor = parseDescriptor(await whole(members, descriptorName, MAX_XML_BYTES))
  const manifest = manifests[0] === undefined ? undefined : parseManifest(await whole(members, manifests[0], MAX_MANIFEST_BYTES))
  const referred = new Map(descriptor.files.map((file) => [file.id, partsOf(file, members)]))
  const used = new Set([descriptorName, ...manifests, ...[...referred.values()].flat().map(({ name }) => name)])
  const certificates = others.filter((name) => /\.cert$/i.test(name))
  const spare = others.filter((name) => !used.has(name) && !certificates.includes(name))
  for (const name of manifest?.keys() ?? []) {
    if (!members.has(name)) throw refuseOvf('missing-file', `the manifest names ${shown(name)}, which is not in the package`)
  }
  return {
    name: descriptor.machine.name,
    disks: descriptor.disks.map((disk) => diskOf(disk, descriptor.files, referred)),
    hints: imageHints(descriptor),
    descriptor,
    hasManifest: manifest !== undefined,
    warnings: [
      ...descriptor.warnings,
      ...(certificates.length > 0 ? ['The package is signed; its signature was not verified.'] : []),
      ...(spare.length > 0
        ? [`${spare.length} files of the package are referred to by nothing, the first is ${shown(spare[0] as string)}.`]
        : []),
    ],
    async verify(options) {
      if (!manifest) return
      for (const name of [...used].filter((each) => each !== manifests[0])) await verifyAll(name, manifest, members, options)
    },
  }
}

async function verifyAll(
  name: string,
  manifest: Manifest,
  members: ReadonlyMap<string, PackageFile>,
  options?: StreamOptions,
): Promise<void> {
  const member = members.get(name)
  if (member) await verifyDigest(name, manifest, member.stream(options))
}

async function whole(members: ReadonlyMap<string, PackageFile>, name: string, maxBytes: number): Promise<Uint8Array> {
  const member = members.get(name)
  if (!member || member.bytes > maxBytes)
    throw refuseOvf('malformed', `${shown(name)} has ${member?.bytes ?? 0} bytes; ${maxBytes} is the limit`, { max: maxBytes })
  return Buffer.concat(await Array.fromAsync(member.stream()))
}

/** The members that a reference is made of: itself, or its parts by their numbers of nine digits. */
function partsOf(file: OvfFile, members: ReadonlyMap<string, PackageFile>): readonly PackageFile[] {
  const { href, bytes, chunkBytes } = file
  const found: PackageFile[] = []
  for (let index = 0; chunkBytes > 0; index += 1) {
    const part = members.get(`${href}.${String(index).padStart(9, '0')}`)
    if (!part) break
    const before = found.at(-1)
    if (part.bytes > chunkBytes || (before && before.bytes !== chunkBytes)) {
      throw refuseOvf('malformed', `the parts of ${shown(href)} have other sizes than ovf:chunkSize, ${chunkBytes}`)
    }
    found.push(part)
  }
  const one = members.get(href)
  if (found.length === 0 && one) found.push(one)
  if (found.length === 0) throw refuseOvf('missing-file', `the descriptor refers to ${shown(href)}, which is not in the package`)
  const stored = found.reduce((sum, part) => sum + part.bytes, 0)
  if (bytes !== undefined && bytes !== stored) {
    throw refuseOvf('truncated', `${shown(href)} has ${stored} bytes; ovf:size says ${bytes}`, { bytes: stored, said: bytes })
  }
  return found
}

function diskOf(disk: OvfDisk, files: readonly OvfFile[], referred: ReadonlyMap<string, readonly PackageFile[]>): ApplianceDisk {
  const file = files.find(({ id }) => id === disk.fileId)
  const parts = file && referred.get(file.id)
  return {
    id: disk.id,
    capacityBytes: disk.capacityBytes,
    diskFormat: formatOf(disk.format),
    file: file && parts && fileOf(file, parts),
  }
}

function fileOf({ href, compression }: OvfFile, parts: readonly PackageFile[]): ApplianceFile {
  const all = () => joined(parts.map((part) => part.open()))
  const isPlain = compression === 'identity' && parts.every((part) => part.isPlain)
  async function* stored(options: StreamOptions) {
    for (const part of parts) yield* part.stream(options)
  }
  return {
    name: href,
    storedBytes: parts.reduce((sum, part) => sum + part.storedBytes, 0),
    isPlain,
    open() {
      if (isPlain) return all()
      throw refuseOvf('unsupported', `${shown(href)} is compressed: it can only be read from its first byte to its last`)
    },
    async *stream(options) {
      if (compression === 'identity') return yield* stored(options)
      const inner = await unpacked(stored(options), options)
      if (inner.compression !== compression) {
        throw refuseOvf('malformed', `${shown(href)} is compressed by ${inner.compression}; ovf:compression says ${compression}`)
      }
      yield* inner.bytes
    },
  }
}

/** Format URIs that are in use: they are names, and are never fetched. */
function formatOf(uri: string): ApplianceDisk['diskFormat'] {
  const plain = uri.toLowerCase()
  if (/vmdk/.test(plain)) return 'vmdk'
  if (/qcow2?(?:-image-format)?/.test(plain)) return 'qcow2'
  if (/vhdx/.test(plain)) return 'vhdx'
  if (/vhd|bb676673/.test(plain)) return 'vhd'
  if (/ecma-119|iso/.test(plain)) return 'iso'
  return /raw/.test(plain) ? 'raw' : null
}

const shown = (name: string): string => JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name)
