import { type Command, commonOptions, type OptionSpec } from './command.ts'
import { allCommands } from './commands.ts'
import { exitCodes } from './exit-codes.ts'
import { argumentLabel, exitsOf, optionLabel, usageLine } from './help.ts'

/** docs/cli.md, made from the commands themselves. To write it: `node src/cli/docs.ts > docs/cli.md`. */
export function renderDocs(commands: readonly Command[]): string {
  const contents = commands.map(({ name, summary }) => `- [\`imprint ${name}\`](#imprint-${name.replace(/ /g, '-')}): ${summary}`)
  const exits = Object.entries(exitCodes).map(([code, meaning]) => `| ${code} | ${meaning} |`)
  return `# The command line

Made from the commands by \`node src/cli/docs.ts > docs/cli.md\`; a test holds the two together.

\`imprint --help\`, \`imprint image --help\` and \`imprint image add --help\` show the same. Names of images, projects and users may
be given wherever an id may; a name that several images share is answered by their list. \`--json\` prints one JSON document on
stdout; progress, notes and errors are on stderr. Colour is used on a terminal only, and never with \`NO_COLOR\`. Whatever steers
a terminal in a name that a stranger gave is shown as its code.

Who you are comes from the environment where it holds \`OS_TOKEN\`, or \`OS_USERNAME\` and \`OS_PASSWORD\`, or
\`OS_APPLICATION_CREDENTIAL_ID\` and \`…_SECRET\`, beside \`OS_AUTH_URL\` and \`OS_PROJECT_NAME\`; else from \`imprint login\`.
\`IMPRINT_URL\` is the address of the service where none is given.

## Exit status

| status | meaning |
|---|---|
${exits.join('\n')}

## Commands

${contents.join('\n')}

${commands.map(commandSection).join('\n')}`
}

function commandSection(command: Command): string {
  const options: [string, OptionSpec][] = Object.entries({ ...command.options, ...commonOptions })
  const cell = (text: string): string => text.replace(/\|/g, '\\|')
  const args = Object.entries(command.arguments).map(
    ([name, spec]) => `| \`${argumentLabel(name, spec)}\` | ${cell(spec.help)} |`,
  )
  const rows = options.map(
    ([key, spec]) =>
      `| \`${cell(optionLabel(key, spec))}\` | ${cell(spec.help)}${spec.type === 'list' ? '; may be repeated' : ''} |`,
  )
  const examples = command.examples.map(([line, meaning]) => `# ${meaning}\n${line}`)
  return [
    `### imprint ${command.name}`,
    `${command.summary}.`,
    ...(command.description ? [command.description] : []),
    `\`\`\`\n${usageLine(command)}\n\`\`\``,
    `| | |\n|---|---|\n${[...args, ...rows].join('\n')}`,
    ...(examples.length > 0 ? [`\`\`\`sh\n${examples.join('\n')}\n\`\`\``] : []),
    `Exit status: ${exitsOf(command).join(', ')}.\n`,
  ].join('\n\n')
}

if (import.meta.main) process.stdout.write(renderDocs(await allCommands()))
