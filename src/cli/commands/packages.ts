import { cycloneDx, spdx } from '../../disk/guest/software/bill-of-materials/documents.ts'
import { readSoftware } from '../../disk/guest/software/index.ts'
import { languagePackages } from '../../disk/guest/software/languages/languages.ts'
import { command } from '../command.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { openGuestFiles, volumeOption } from '../disk-file/guest-files.ts'
import { withAdvice } from '../disk-file/open-disk.ts'
import { diskOptions, PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import { Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'
import { ownVersion } from './version.ts'

const documents = { cyclonedx: cycloneDx, spdx }

export const packages = command({
  name: 'packages',
  summary: 'List the software on the disk in an image file, without starting it',
  description: [
    'What dpkg, rpm, apk and pacman have installed, by their own databases, with what packages were built from; and packages of Python, Node, Ruby and Java, and what programs of Go and Rust were built of, wherever they are on the disk.',
    'A database that cannot be read is an error (status 1), and so is a known distribution without a package: what could be read is printed all the same.',
    'The same disk gives the same CycloneDX 1.6 or SPDX 2.3 document, so it has no date.',
  ].join('\n'),
  arguments: { file: { help: PLACE, completes: 'file' } },
  options: {
    sbom: { type: 'choice', choices: ['cyclonedx', 'spdx'], help: 'as a bill of materials, in JSON' },
    distributionOnly: { type: 'flag', help: "the distribution's packages alone, without a look at every file" },
    ...volumeOption,
    ...diskOptions,
    ...spoolOption,
  },
  examples: [
    ['imprint packages debian-12.qcow2', 'a list for people'],
    ['imprint packages fedora-40.qcow2 --json', 'for programs'],
    ['imprint packages disk.vmdk --sbom cyclonedx > disk.cdx.json', 'for scanners'],
  ],
  exits: [1, 3],
  async run({ file, sbom, distributionOnly, volume, from, snapshot, parent, part, member, spoolBytes }, { out, signal }) {
    const progress = new Progress(out)
    try {
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const wish = { source: file, from, snapshot, parents: parent, parts: part, member, volume }
      await using files = await openGuestFiles(wish, openFile, onProgress)
      progress.end()
      const { packages: installed, notes: said, failures, operatingSystem } = await readSoftware(files)
      const languages = distributionOnly ? { packages: [], notes: [] } : await languagePackages(files.tree, { signal })
      const [found, notes] = [installed.concat(languages.packages), said.concat(languages.notes)]
      for (const note of [...files.notes, ...notes]) out.note(safeText(note))
      if (sbom) {
        const missing = [...notes, ...failures.map(({ message }) => message)]
        const bill = { name: nameOf(file), packages: found, operatingSystem, notes: missing, toolVersion: ownVersion() }
        out.raw(`${out.jsonText(documents[sbom](bill))}\n`)
      } else if (out.json) {
        const failed = failures.map(({ code, message }) => ({ code, message }))
        out.result({ packages: found, notes: [...files.notes, ...notes], failures: failed }, () => undefined)
      } else {
        out.table(found, [
          { title: 'KIND', value: ({ kind }) => kind },
          { title: 'NAME', value: ({ name }) => name },
          { title: 'VERSION', value: ({ version }) => version },
          { title: 'ARCHITECTURE', value: ({ architecture }) => architecture },
          { title: 'SOURCE', value: ({ source }) => source?.name ?? null },
        ])
      }
      for (const { message } of failures) out.error(safeText(message))
      return failures.length > 0 ? 1 : 0
    } catch (error) {
      throw withAdvice(endedBy(signal, error))
    } finally {
      progress.end()
    }
  },
})

/** Of a file or of an address, without where it is: that is nobody's business. */
const nameOf = (place: string): string =>
  place
    .replace(/[?#].*$/s, '')
    .split('/')
    .filter(Boolean)
    .at(-1) ?? place
