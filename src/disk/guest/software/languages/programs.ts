import { constants, inflateSync } from 'node:zlib'
import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { paged } from '../../../filters/paged.ts'
import type { Package } from '../package.ts'
import { type Section, sectionsOf } from './elf-sections.ts'
import { goPackages } from './go.ts'
import { jsonOf, type LanguageReader, languagePackage, memberOf, refuse } from './language-reader.ts'

const MIN_PROGRAM_BYTES = 16 * KiB // a Go or Rust program has a megabyte
const EXECUTABLE = 0o111
const MAX_AUDIT_BYTES = 8 * MiB // the limit of cargo-audit
const MAX_AUDIT_PACKAGES = 100_000
const inPages = paged({ pageBytes: 4 * KiB, maxBytes: 256 * KiB })

/** What programs of Go, and of Rust with cargo-auditable, were built of. One look at an ELF file serves both. */
export const programs: LanguageReader = {
  name: 'Go and Rust',
  wants: ({ node }) => (node.mode & EXECUTABLE) !== 0 && node.bytes >= MIN_PROGRAM_BYTES,
  async read(unpaged, path) {
    const file = inPages(unpaged)
    const sections = await sectionsOf(file)
    const [go, rust] = ['.go.buildinfo', '.dep-v0'].map((name) => sections.find((each) => each.name === name))
    return [...(go ? await goPackages(file, go, sections, path) : []), ...(rust ? await rustPackages(file, rust, path) : [])]
  },
}

/** Source: cargo-auditable, PARSING.md: JSON in zlib. What served to build alone is not in the program. */
async function rustPackages(file: BlockSource, section: Section, path: string): Promise<Package[]> {
  if (section.bytes > MAX_AUDIT_BYTES)
    throw refuse(`its .dep-v0 has ${section.bytes} bytes, and at most ${MAX_AUDIT_BYTES} are read`)
  const list = memberOf(jsonOf(inflated(await file.read(section.offset, section.bytes))), 'packages')
  if (!Array.isArray(list) || list.length > MAX_AUDIT_PACKAGES) throw refuse('its .dep-v0 has no list of packages')
  return list.flatMap((each: unknown) => {
    if (memberOf(each, 'kind') === 'build') return []
    const found = languagePackage('cargo', memberOf(each, 'name'), memberOf(each, 'version'), path)
    return found ? [found] : []
  })
}

function inflated(bytes: Uint8Array): string {
  try {
    return inflateSync(bytes, { maxOutputLength: MAX_AUDIT_BYTES, finishFlush: constants.Z_FINISH }).toString('utf8')
  } catch (error) {
    throw refuse(`its .dep-v0 cannot be unpacked: ${error instanceof Error ? error.message : ''}`)
  }
}
