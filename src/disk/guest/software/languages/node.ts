import { MiB } from '../../../../base/units.ts'
import { bytesOf, jsonOf, type LanguageReader, languagePackage, memberOf } from './language-reader.ts'

/** The root of an installed package; what packages keep inside of them is none. The second is where Debian puts its own. */
const PLACES = /\/(?:node_modules|usr\/share\/nodejs)\/(?:@[^/]+\/)?[^/@][^/]*\/package\.json$/

/** What npm, yarn and pnpm installed. Source: npm, "folders" and "package.json". */
export const node: LanguageReader = {
  name: 'Node',
  wants: ({ path }) => PLACES.test(path),
  async read(file, path) {
    const found = jsonOf((await bytesOf(file, 4 * MiB)).toString('utf8'))
    const each = languagePackage('npm', memberOf(found, 'name'), memberOf(found, 'version'), path)
    return each ? [each] : [] // of some folders, package.json says the kind of module and no more
  },
}
