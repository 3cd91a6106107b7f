import { KiB } from '../../../../base/units.ts'
import { fieldOf, type LanguageReader, languagePackage, refuse } from './language-reader.ts'

/** Name and version come first; a long description follows. */
const MAX_HEAD_BYTES = 64 * KiB
const PLACES = /\.dist-info\/METADATA$|\.egg-info(?:\/PKG-INFO)?$|\/EGG-INFO\/PKG-INFO$/

/** What pip and distributions installed. Source: Python Packaging User Guide, "Core metadata specifications", "Recording installed projects". */
export const python: LanguageReader = {
  name: 'Python',
  wants: ({ path }) => PLACES.test(path),
  async read(file, path) {
    const text = Buffer.from(await file.read(0, Math.min(file.size, MAX_HEAD_BYTES))).toString('utf8')
    const lines = text.split('\n')
    const end = lines.findIndex((line) => line.trim() === '')
    const head = end < 0 ? lines : lines.slice(0, end)
    const found = languagePackage('pypi', fieldOf(head, 'Name'), fieldOf(head, 'Version'), path)
    if (!found) throw refuse('it has no name or no version')
    return [found]
  },
}
