/**
 * Names come from strangers: an escape sequence in one could redraw the terminal, a bidi mark could make `exe.gpj` of it.
 * Everything that steers instead of showing is written as its code: C0, DEL, C1, bidi controls, invisible format characters,
 * line and paragraph separators, lone surrogates.
 */
const STEERING =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g

/** `text` on one line, inert in a terminal. */
export const safeText = (text: string): string =>
  text.replace(STEERING, (character) => {
    const code = character.charCodeAt(0)
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`
  })

/** `text` as one word of a shell's line that people may copy. */
export const shellWord = (text: string): string => {
  const safe = safeText(text)
  return /^[\w.@%+:,/][\w.@%+:,/-]*$/.test(safe) ? safe : `'${safe.replaceAll("'", "'\\''")}'`
}

/** JSON that is inert in a terminal too: what JSON leaves as it is, is written as `\uXXXX`, which reads back the same. */
export const safeJson = (value: unknown, indent?: number): string =>
  JSON.stringify(value, null, indent).replace(STEERING, (character) =>
    character === '\n' ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )

const NO_WIDTH = /\p{M}|\u200c|\u200d|\ufe0e|\ufe0f/gu
const DOUBLE_WIDTH =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/gu

/** Columns of a terminal that `text` (already safe) takes. */
export function columnsOf(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length
  const visible = text.replace(NO_WIDTH, '')
  return [...visible].length + (visible.match(DOUBLE_WIDTH)?.length ?? 0)
}
