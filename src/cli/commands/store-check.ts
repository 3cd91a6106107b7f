import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'
import { followJob } from '../store-job.ts'

export const storeCheck = command({
  name: 'store check',
  summary: 'Look for damage in the store, and name the images it touches',
  arguments: {},
  options: { readData: { type: 'flag', help: 'read and verify every byte, not only the structure' } },
  examples: [
    ['imprint store check', 'indexes, footers and manifests: quick'],
    ['imprint store check --read-data', 'every chunk too; Ctrl-C stops it'],
  ],
  exits: [4, 5, 7],
  async run({ readData }, context) {
    const { out } = context
    const { raw, faults } = await followJob('check', { readData }, context)
    out.result({ ...(raw as object), faults: faults.map((one) => one.raw) }, () => {
      for (const { fault } of faults) {
        const images = fault
          .shapes('images')
          .map((image) => `${safeText(image.textOrNull('name') ?? '–')} (${safeText(image.text('id'))})`)
        out.line(`${out.tone(safeText(fault.text('kind')), 'bad')}: ${safeText(fault.text('message'))}`)
        for (const image of images) out.line(`  touches ${image}`)
      }
      out.line(
        faults.length === 0
          ? out.tone('No damage found.', 'good')
          : `${faults.length} ${faults.length === 1 ? 'fault' : 'faults'} found.`,
      )
    })
    return faults.length === 0 ? 0 : 1
  },
})
