import { ServiceError } from '../../../base/errors.ts'
import { KiB } from '../../../base/units.ts'
import { memorySource } from '../../block/memory-source.ts'
import { type Archive, type Member, shown } from '../archives/archive.ts'
import type { Appliance, ApplianceDisk, ApplianceFile } from '../ova/open-ova.ts'
import type { InsideOptions } from './look-inside.ts'
import { refuseInside } from './refusal.ts'

export type Wish = Pick<InsideOptions, 'recognise' | 'choosing' | 'member'>
export interface Choice {
  readonly member: Member
  /** The other files of its disk, by the names that its descriptor has for them. */
  readonly parts: ReadonlyMap<string, Member>
  /** It is the one that was asked for. */
  readonly isWished: boolean
}

const DISK_NAME = /\.(?:qcow2?|qed|vmdk|vhdx?|vpc|vdi|hdd|hds|raw|img|dd|iso|ova)(?:\.(?:gz|bz2|xz|zst))?$/i
const ARCHIVE_NAME = /\.(?:zip|t(?:ar\.)?(?:gz|bz2?|xz|zst)|tar)$/i
const HEAD_BYTES = 72 * KiB // what recognising looks at
/** More than the largest that is read (1 MiB) would be read for nothing, and so would those of many. */
const MAX_DESCRIPTOR_BYTES = 1024 * KiB
const MAX_DESCRIPTORS = 16
const DESCRIPTOR_MAGIC = '# Disk DescriptorFile'
const MAX_LISTED = 20

export const isDescriptor = ({ name }: Member): boolean => /\.ovf$/i.test(name) && !isForeign(name)

/**
 * The one disk of an archive: by the names of its members; where none sounds like a disk, by their first bytes; or the only member.
 * Extents that a VMDK descriptor names are parts of its disk.
 * @throws ServiceError `invalid-image`: `several-disks`, `no-disk`; `not-found`
 */
export async function chooseMember({ kind, members }: Archive, wish: Wish): Promise<Choice> {
  const candidates = await candidatesOf(members, wish)
  const groups = await grouped(candidates, members)
  if (wish.member !== undefined) {
    const wished = named(members, wish.member, ({ name }) => [name])
    if (wished) return { member: wished, parts: await partsOf(wished, members), isWished: true }
    const [only] = groups
    const isDeeper = groups.length === 1 && only && (ARCHIVE_NAME.test(only.member.name) || /\.ova/i.test(only.member.name))
    if (!isDeeper)
      throw absent(
        kind,
        wish.member,
        members.map(({ name }) => name),
      )
  }
  const [only] = groups
  if (!only) {
    const list = listed(members.map(({ name }) => name))
    throw refuseInside('no-disk', `the ${kind} holds no disk; it holds ${list || 'nothing'}`, { format: kind, members: list })
  }
  if (groups.length > 1)
    throw severalDisks(
      kind,
      groups.map(({ member }) => member.name),
      wish.choosing,
    )
  return only
}

/** The one disk of a package that is in a file. @throws as `chooseMember` */
export function chooseDisk(
  { disks }: Appliance,
  { member, choosing }: Wish,
): { readonly disk: ApplianceDisk & { readonly file: ApplianceFile }; readonly isWished: boolean } {
  const withFile = disks.flatMap((disk) => (disk.file ? [{ ...disk, file: disk.file }] : []))
  const names = withFile.map(({ file }) => file.name)
  const [only] = withFile
  if (!only) throw refuseInside('no-disk', 'the package has no disk that is in a file', { format: 'ovf', members: '' })
  if (member !== undefined) {
    const disk = named(withFile, member, ({ file, id }) => [file.name, id])
    if (disk) return { disk, isWished: true }
    throw absent('package', member, names)
  }
  if (withFile.length > 1) throw severalDisks('package', names, choosing)
  return { disk: only, isWished: false }
}

async function candidatesOf(members: readonly Member[], { recognise }: Wish): Promise<readonly Member[]> {
  const own = members.filter(({ name }) => !isForeign(name))
  const byName = own.filter(({ name }) => DISK_NAME.test(name))
  if (byName.length > 0) return byName
  const byBytes: Member[] = []
  for (const member of own) {
    const { found } = await recognise(memorySource(member.bytes, [{ offset: 0, bytes: await headOf(member) }]))
    const isDisk = found.some(({ kind, name }) => kind === 'disk' || ['mbr', 'gpt'].includes(name))
    if (isDisk || ARCHIVE_NAME.test(member.name)) byBytes.push(member)
  }
  return byBytes.length > 0 || own.length > 1 ? byBytes : own
}

/** What systems put into archives beside what they were told to: `__MACOSX/._disk.img`. */
const isForeign = (name: string): boolean => name.startsWith('__MACOSX/') || lastPart(name).startsWith('.')
const lastPart = (name: string): string => name.slice(name.lastIndexOf('/') + 1)

/** Disks, each with its parts, and the parts among the others left out. */
async function grouped(candidates: readonly Member[], members: readonly Member[]): Promise<readonly Choice[]> {
  const groups: Choice[] = []
  let descriptors = 0
  for (const member of candidates) {
    const parts = descriptors < MAX_DESCRIPTORS ? await partsOf(member, members) : new Map<string, Member>()
    if (parts.size > 0) descriptors += 1
    groups.push({ member, parts, isWished: false })
  }
  const asParts = new Set(groups.flatMap(({ parts }) => [...parts.values()]))
  return groups.filter(({ member }) => !asParts.has(member))
}

/** Of a VMDK descriptor, the members beside it that it names. Whether they are all, and what they should be, its driver says. */
async function partsOf(member: Member, members: readonly Member[]): Promise<ReadonlyMap<string, Member>> {
  const parts = new Map<string, Member>()
  if (member.bytes > MAX_DESCRIPTOR_BYTES || member.bytes < DESCRIPTOR_MAGIC.length) return parts
  const head = Buffer.from(await headOf(member, DESCRIPTOR_MAGIC.length)).toString('latin1')
  if (!head.startsWith(DESCRIPTOR_MAGIC)) return parts
  const text = Buffer.from(await headOf(member, member.bytes)).toString('utf8')
  const names = new Set(Array.from(text.matchAll(/^(?:RW|RDONLY|NOACCESS)\s[^"\n]*"([^"\n]*)"/gim), ([, name]) => name))
  const folder = member.name.slice(0, member.name.length - lastPart(member.name).length)
  for (const other of members) {
    const name = other.name.slice(folder.length)
    if (other !== member && other.name.startsWith(folder) && names.has(name)) parts.set(name, other)
  }
  return parts
}

async function headOf(member: Member, most = HEAD_BYTES): Promise<Uint8Array> {
  const wanted = Math.min(most, member.bytes)
  if (member.isPlain) return member.open().read(0, wanted)
  const head = Buffer.alloc(wanted)
  let filled = 0
  for await (const piece of member.stream()) {
    head.set(piece.subarray(0, wanted - filled), filled)
    filled += Math.min(piece.length, wanted - filled)
    if (filled === wanted) break
  }
  return head
}

/** By a whole name, or by the last part of one where that is of one alone. */
function named<Item>(items: readonly Item[], wanted: string, namesOf: (item: Item) => readonly string[]): Item | undefined {
  const whole = items.find((item) => namesOf(item).includes(wanted))
  const byLast = items.filter((item) => namesOf(item).some((name) => lastPart(name) === wanted))
  return whole ?? (byLast.length === 1 ? byLast[0] : undefined)
}

function absent(kind: string, wanted: string, names: readonly string[]): ServiceError {
  return new ServiceError('not-found', `the ${kind} has no member ${shown(wanted)}; it has ${listed(names) || 'none'}`)
}

function severalDisks(kind: string, names: readonly string[], choosing: string): ServiceError {
  const list = listed(names)
  const problem = `the ${kind} holds ${names.length} disks, ${list}: choose one with ${choosing}`
  return refuseInside('several-disks', problem, { format: kind, disks: names.length, members: list })
}

const listed = (names: readonly string[]): string => {
  const first = names.slice(0, MAX_LISTED).map(shown).join(', ')
  return names.length > MAX_LISTED ? `${first} and ${names.length - MAX_LISTED} more` : first
}
