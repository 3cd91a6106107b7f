import { type LanguageReader, languagePackage } from './language-reader.ts'

/** `nokogiri-1.15.4-x86_64-linux.gemspec`: the last part that begins with a digit is the version. A gemspec is a program, and is not read. */
const GEMSPEC = /\/specifications\/(?:default\/)?([^/]+)-(\d[0-9A-Za-z.]*)(?:-[a-z][\w-]*)?\.gemspec$/

/** What RubyGems installed. Source: RubyGems, Gem::Specification#full_name. */
export const ruby: LanguageReader = {
  name: 'Ruby',
  wants: ({ path }) => GEMSPEC.test(path),
  async read(_, path) {
    const [, name, version] = GEMSPEC.exec(path) ?? []
    const found = languagePackage('gem', name, version, path)
    return found ? [found] : []
  },
}
