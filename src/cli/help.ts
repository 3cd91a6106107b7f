import { type ArgumentSpec, type Command, commonOptions, type OptionSpec, optionName } from './command.ts'
import { type ExitCode, exitCodes } from './exit-codes.ts'

export const argumentLabel = (name: string, spec: ArgumentSpec): string => {
  const label = name.replace(/[A-Z]/g, (letter) => `-${letter}`).toUpperCase()
  const repeated = spec.many ? `${label}…` : label
  return spec.optional ? `[${repeated}]` : repeated
}

export const optionLabel = (key: string, spec: OptionSpec): string => {
  const name = optionName(key)
  if (spec.type === 'flag') return name
  return `${name} ${spec.type === 'choice' ? spec.choices.join('|') : spec.value}`
}

export const usageLine = (command: Command): string =>
  [
    'imprint',
    command.name,
    ...Object.entries(command.arguments).map(([name, spec]) => argumentLabel(name, spec)),
    '[options]',
  ].join(' ')

/** The statuses that a command may end with. */
export const exitsOf = (command: Command): readonly ExitCode[] =>
  ([0, 1, 2, ...command.exits, 130] as const).filter((code, at, all) => all.indexOf(code) === at)

/** The page that `--help` shows. */
export function commandHelp(command: Command): string {
  const options: [string, OptionSpec][] = Object.entries({ ...command.options, ...commonOptions })
  const sections = [
    `${command.summary}.\n\nUsage: ${usageLine(command)}`,
    ...(command.description ? [command.description] : []),
    ...section(
      'Arguments',
      Object.entries(command.arguments).map(([name, spec]) => [argumentLabel(name, spec), spec.help]),
    ),
    ...section(
      'Options',
      options.map(([key, spec]) => [optionLabel(key, spec), spec.help + (spec.type === 'list' ? '; may be repeated' : '')]),
    ),
    ...(command.examples.length > 0
      ? [`Examples:\n${command.examples.map(([line, meaning]) => `  # ${meaning}\n  ${line}`).join('\n')}`]
      : []),
    ...section(
      'Exit status',
      exitsOf(command).map((code) => [String(code), exitCodes[code]]),
    ),
  ]
  return `${sections.join('\n\n')}\n`
}

/** The page for `imprint --help`, and for a group such as `imprint image`. */
export function groupHelp(group: string, commands: readonly Command[]): string {
  const title = group === '' ? 'Imprint: the image service for virtual and bare-metal machines.' : `imprint ${group}`
  const usage = `Usage: imprint ${group === '' ? '' : `${group} `}COMMAND [options]`
  const rows = commands.map(({ name, summary }): [string, string] => [name, summary])
  const first =
    group === ''
      ? '\n\nFirst steps:\n  imprint serve\n  imprint login\n  imprint run debian\n  imprint image add debian-12.qcow2\n  imprint image list'
      : ''
  return `${title}\n\n${usage}\n\n${section('Commands', rows)[0]}${first}\n\nMore about one of them: imprint COMMAND --help\n`
}

/** Two columns, wrapped to 100; long labels stand on a line of their own. */
function section(title: string, rows: readonly (readonly [label: string, text: string])[]): string[] {
  if (rows.length === 0) return []
  const width = Math.min(
    30,
    rows.reduce((most, [label]) => Math.max(most, label.length), 0),
  )
  const lines = rows.flatMap(([label, text]) => {
    const [first = '', ...rest] = wrap(text, 100 - width - 4)
    const indent = ' '.repeat(width + 4)
    const head = label.length > width ? [`  ${label}`, `${indent}${first}`] : [`  ${label.padEnd(width)}  ${first}`]
    return [...head, ...rest.map((line) => indent + line)]
  })
  return [`${title}:\n${lines.join('\n')}`]
}

function wrap(text: string, columns: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
