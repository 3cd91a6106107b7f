import { ServiceError } from '../../../../base/errors.ts'
import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { paged } from '../../../filters/paged.ts'
import type { Notes } from '../notes.ts'
import type { Package } from '../package.ts'
import { bytesOf, fieldOf, type LanguageReader, languagePackage } from './language-reader.ts'
import { type Member, membersOf, openMember } from './zip.ts'

const ARCHIVE = /\.(?:jar|war|ear)$/
const POM = /^META-INF\/maven\/[^/]+\/[^/]+\/pom\.properties$/
const MANIFEST = 'META-INF/MANIFEST.MF'
const MAX_TEXT_BYTES = 256 * KiB
const MAX_NAME_CHARACTERS = 255 // of a file on a disk; a member's may be of 64 KiB
const MAX_DEPTH = 3 // a jar in a war in an ear
/** Of one file on the disk, with all that is in it. */
const budgetOfOne = () => ({ unpackedBytes: 256 * MiB, listBytes: 64 * MiB, archives: 5000 })
const MAX_LIST_BYTES = 16 * MiB
const MAX_INNER_BYTES = 16 * MiB
const inPages = paged({ pageBytes: 64 * KiB, maxBytes: MiB })

/**
 * Jars, and the jars in them: by what Maven left inside, else by the manifest, else by the file's name. Source: Apache Maven Archiver, "pom.properties";
 * JAR File Specification, "JAR Manifest".
 */
export const java: LanguageReader = {
  name: 'Java',
  wants: ({ path, node }) => ARCHIVE.test(path) && node.bytes > 0,
  async read(file, path, notes) {
    const packages: Package[] = []
    await readArchive(inPages(file), path, MAX_DEPTH, { packages, notes, left: budgetOfOne() })
    return packages
  },
}

interface Reading {
  readonly packages: Package[]
  readonly notes: Notes
  readonly left: ReturnType<typeof budgetOfOne>
}

async function readArchive(file: BlockSource, path: string, depth: number, reading: Reading): Promise<void> {
  const { packages, notes, left } = reading
  left.archives -= 1
  if (left.archives < 0) throw new ServiceError('too-large', 'it has too many archives in it')
  const { members, listBytes } = await membersOf(file, Math.min(MAX_LIST_BYTES, left.listBytes))
  left.listBytes -= listBytes
  const poms = members.filter(({ name }) => POM.test(name))
  let count = 0
  for (const pom of poms) {
    const found = pomPackage(await textOf(file, pom, left), path)
    if (!found) continue
    packages.push(found)
    count += 1
  }
  const manifest = members.find(({ name }) => name === MANIFEST)
  const other = count > 0 ? undefined : namedPackage(manifest ? await textOf(file, manifest, left) : '', path)
  if (other) packages.push(other)
  for (const inner of members) {
    if (!ARCHIVE.test(inner.name)) continue
    const where = `${path}!/${inner.name}`
    if (depth <= 1) {
      notes.add(`${where} is ${MAX_DEPTH} archives deep and was not read`)
      continue
    }
    try {
      if (inner.method !== 0) spend(inner, left)
      await readArchive(await openMember(file, inner, MAX_INNER_BYTES), where, depth - 1, reading)
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
      notes.add(`${where} cannot be read: ${error.message}`)
      if (left.archives < 0 || left.listBytes <= 0 || left.unpackedBytes < 0) throw error
    }
  }
}

async function textOf(file: BlockSource, member: Member, left: Reading['left']): Promise<string> {
  spend(member, left)
  return (await bytesOf(await openMember(file, member, MAX_TEXT_BYTES), MAX_TEXT_BYTES)).toString('utf8')
}

/** Members may lie over each other: a small archive can ask for much. */
function spend(member: Member, left: Reading['left']): void {
  left.unpackedBytes -= member.bytes + member.storedBytes
  if (left.unpackedBytes < 0) throw new ServiceError('too-large', 'what is in it is too large when unpacked')
}

function pomPackage(text: string, path: string): Package | undefined {
  const lines = text.split('\n')
  const field = (name: string) => fieldOf(lines, name)
  const [group, artifact] = [field('groupId'), field('artifactId')]
  return group && artifact ? languagePackage('maven', `${group}:${artifact}`, field('version'), path) : undefined
}

/** `guava-33.0.0-jre.jar`, where the manifest says no better. */
function namedPackage(manifest: string, path: string): Package | undefined {
  const main = manifest.replaceAll('\r\n', '\n').split('\n\n', 1)[0]!.replaceAll('\n ', '').split('\n')
  const field = (name: string) => fieldOf(main, name)
  const file = path.slice(path.lastIndexOf('/') + 1).replace(ARCHIVE, '')
  const [, fileName = file, fileVersion] = (file.length <= MAX_NAME_CHARACTERS && /^(.+?)-(\d.*)$/.exec(file)) || []
  const group = field('Implementation-Vendor-Id')
  const name =
    fileVersion === undefined
      ? (field('Bundle-SymbolicName')?.split(';')[0] ?? field('Implementation-Title') ?? fileName)
      : fileName
  const version = fileVersion ?? field('Implementation-Version') ?? field('Bundle-Version') ?? field('Specification-Version')
  return languagePackage('maven', group && !group.includes(' ') ? `${group}:${name}` : name, version, path)
}
