import { command } from '../command.ts'
import { allCommands } from '../commands.ts'
import { completionScript } from '../completion-script.ts'

export const completion = command({
  name: 'completion',
  summary: 'Print the script that completes commands and options in your shell',
  arguments: { shell: { help: 'bash, zsh or fish' } },
  options: {},
  examples: [
    ['imprint completion bash > ~/.local/share/bash-completion/completions/imprint', 'for bash'],
    ['imprint completion zsh > /usr/local/share/zsh/site-functions/_imprint', 'for zsh'],
    ['imprint completion fish > ~/.config/fish/completions/imprint.fish', 'for fish'],
  ],
  exits: [],
  async run({ shell }, { out }) {
    const script = completionScript(shell, await allCommands())
    out.result({ shell, script }, () => out.raw(script))
    return 0
  },
})
