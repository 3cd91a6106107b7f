import { safeText } from '../safe-text.ts'

/** CSI and OSC sequences, and the two-character ones: ECMA-48, sections 5.3 to 5.6. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const SEQUENCES = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]/g

/** What a guest said, for a terminal that it shall not steer: without colours, cursor movements and carriage returns. */
export const plainText = (text: string): string =>
  text
    .replace(SEQUENCES, '')
    .replaceAll('\r', '')
    .split('\n')
    .map((line) => line.split('\t').map(safeText).join('\t'))
    .join('\n')
