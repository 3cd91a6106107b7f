import { type Command, type Completes, commonOptions, type OptionSpec, optionName } from './command.ts'
import { UsageError } from './exit-codes.ts'
import { safeText } from './safe-text.ts'

/** @throws UsageError for a shell that is not known */
export function completionScript(shell: string, commands: readonly Command[]): string {
  const make = { bash, zsh, fish }[shell]
  if (!make) throw new UsageError(`there is no completion for "${safeText(shell)}"; there is for bash, zsh and fish`)
  return make(commands)
}

const optionsOf = (command: Command): [string, OptionSpec][] => Object.entries({ ...command.options, ...commonOptions })
const groupsOf = (commands: readonly Command[]): Map<string, Command[]> =>
  Map.groupBy(
    commands.filter(({ name }) => name.includes(' ')),
    ({ name }) => name.split(' ')[0]!,
  )
/** Words that are a command by themselves and begin others: `export debian`, `export list`. */
const dualsOf = (commands: readonly Command[]): [string, string[]][] =>
  [...groupsOf(commands)]
    .filter(([group]) => commands.some(({ name }) => name === group))
    .map(([group, members]) => [group, members.map(({ name }) => name.split(' ')[1]!)])
const firstWords = (commands: readonly Command[]): string[] => [...new Set(commands.map(({ name }) => name.split(' ')[0]!))]
const completesOf = (command: Command): Completes =>
  Object.values(command.arguments).find(({ completes }) => completes !== undefined)?.completes ?? 'none'

function bash(commands: readonly Command[]): string {
  const duals = new Map(dualsOf(commands))
  const names = commands.map((command) => {
    const words = optionsOf(command).map(([key]) => optionName(key))
    const files = completesOf(command) === 'file' ? ' files' : ''
    words.unshift(...(duals.get(command.name) ?? []))
    return `    "${command.name}") words="${words.join(' ')}"${files ? '; files=1' : ''} ;;`
  })
  const values = commands.flatMap((command) =>
    optionsOf(command).flatMap(([key, spec]) => {
      if (spec.type === 'choice') return [`    "${command.name} ${optionName(key)}") words="${spec.choices.join(' ')}" ;;`]
      if (spec.type === 'text' && spec.completes === 'file') return [`    "${command.name} ${optionName(key)}") files=1 ;;`]
      return spec.type === 'flag' ? [] : [`    "${command.name} ${optionName(key)}") return ;;`]
    }),
  )
  const groups = [...groupsOf(commands)].map(
    ([group, members]) => `    "${group}") words="${members.map(({ name }) => name.split(' ')[1]).join(' ')}" ;;`,
  )
  return `# bash completion for imprint; made by: imprint completion bash
_imprint() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" words="" files="" name="" level=2
  COMPREPLY=()
  case "\${COMP_WORDS[1]}" in
${dualsOf(commands)
  .map(
    ([group, inner]) =>
      `    ${group}) case "\${COMP_WORDS[2]}" in ${inner.join('|')}) name="${group} \${COMP_WORDS[2]}"; level=3 ;; *) name=${group} ;; esac ;;`,
  )
  .join('\n')}
    ${[...groupsOf(commands).keys()].join('|')}) name="\${COMP_WORDS[1]} \${COMP_WORDS[2]}"; level=3 ;;
    *) name="\${COMP_WORDS[1]}" ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${firstWords(commands).join(' ')}" -- "$current")); return
  fi
  if [ "$COMP_CWORD" -lt "$level" ]; then
    case "\${COMP_WORDS[1]}" in
${groups.join('\n')}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current")); return
  fi
  case "$name $previous" in
${values.join('\n')}
  *) case "$name" in
${names.join('\n')}
  esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ -n "$files" ] && [ "\${current#-}" = "$current" ]; then COMPREPLY+=($(compgen -f -- "$current")); fi
}
complete -o filenames -F _imprint imprint
`
}

function zsh(commands: readonly Command[]): string {
  const quote = (text: string): string => text.replace(/[[\]:\\]/g, '\\$&').replace(/'/g, "'\\''")
  const describe = (rows: readonly (readonly [string, string])[]) =>
    rows.map(([word, help]) => `'${quote(word)}:${quote(help)}'`).join(' ')
  const value = (spec: OptionSpec): string => {
    if (spec.type === 'flag') return ''
    if (spec.type === 'choice') return `:value:(${spec.choices.join(' ')})`
    return spec.type === 'text' && spec.completes === 'file' ? ':file:_files' : ':value: '
  }
  const cases = commands.map((command) => {
    const specs = optionsOf(command).map(([key, spec]) => {
      const repeated = spec.type === 'list' ? '*' : ''
      return `'${repeated}${optionName(key)}[${quote(spec.help)}]${value(spec)}'`
    })
    const rest = completesOf(command) === 'file' ? ["'*:file:_files'"] : []
    return `    '${command.name}') _arguments ${[...specs, ...rest].join(' ')} ;;`
  })
  const top = firstWords(commands).map((word): [string, string] => [
    word,
    commands.find(({ name }) => name === word)?.summary ?? `commands about one ${word}`,
  ])
  const groups = [...groupsOf(commands)].map(([group, members]) => {
    const rows = members.map(({ name, summary }): [string, string] => [name.split(' ')[1]!, summary])
    return `    ${group}) local -a inner=(${describe(rows)}); _describe command inner; return ;;`
  })
  return `#compdef imprint
# made by: imprint completion zsh
_imprint() {
  local name="$words[2]"
  if (( CURRENT == 2 )); then
    local -a top=(${describe(top)}); _describe command top; return
  fi
  if (( CURRENT == 3 )); then case "$words[2]" in
${groups.join('\n')}
  esac; fi
  case "$words[2] $words[3]" in
    ${commands.flatMap(({ name }) => (name.includes(' ') ? [`"${name}"`] : [])).join('|')}) name="$words[2] $words[3]"; shift words; (( CURRENT-- )) ;;
  esac
  shift words; (( CURRENT-- ))
  case "$name" in
${cases.join('\n')}
  esac
}
_imprint "$@"
`
}

function fish(commands: readonly Command[]): string {
  const quote = (text: string): string => `'${text.replace(/\\/g, '\\\\').replace(/'/g, "\\'")}'`
  const groups = groupsOf(commands)
  const duals = new Map(dualsOf(commands))
  const seen = (name: string): string =>
    [
      ...name.split(' ').map((word) => `__fish_seen_subcommand_from ${word}`),
      ...(duals.has(name) ? [`not __fish_seen_subcommand_from ${duals.get(name)!.join(' ')}`] : []),
    ].join('; and ')
  const top = firstWords(commands).map((word) => {
    const help = commands.find(({ name }) => name === word)?.summary ?? `commands about one ${word}`
    return `complete -c imprint -n __fish_use_subcommand -f -a ${word} -d ${quote(help)}`
  })
  const inner = [...groups].flatMap(([group, members]) => {
    const words = members.map(({ name }) => name.split(' ')[1]!)
    return members.map(
      ({ name, summary }) =>
        `complete -c imprint -n ${quote(`__fish_seen_subcommand_from ${group}; and not __fish_seen_subcommand_from ${words.join(' ')}`)} -f -a ${name.split(' ')[1]} -d ${quote(summary)}`,
    )
  })
  const options = commands.flatMap((command) =>
    optionsOf(command).map(([key, spec]) => {
      const files = spec.type === 'text' && spec.completes === 'file'
      const value =
        spec.type === 'flag' ? '' : spec.type === 'choice' ? ` -x -a ${quote(spec.choices.join(' '))}` : files ? ' -r -F' : ' -x'
      return `complete -c imprint -n ${quote(seen(command.name))} -l ${optionName(key).slice(2)}${value} -d ${quote(spec.help)}`
    }),
  )
  const files = commands
    .filter((command) => completesOf(command) === 'file')
    .map(({ name }) => `complete -c imprint -n ${quote(seen(name))} -F`)
  return `# fish completion for imprint; made by: imprint completion fish\n${[...top, ...inner, ...options, ...files].join('\n')}\n`
}
