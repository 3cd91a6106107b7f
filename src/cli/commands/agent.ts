import type { SettingName } from '../../settings/settings.ts'
import { command } from '../command.ts'
import { settingOptions } from './serve.ts'

/** Of the service's settings, those that concern machines. */
const concerned = ['data', 'logLevel', 'instanceAccelerator', 'instanceUser', 'instanceCgroup', 'qemu'] as const
const options = Object.fromEntries(concerned.map((name) => [name, settingOptions[name]!]))

export const agent = command({
  name: 'agent',
  summary: 'Run machines of a service, as one of its hosts',
  description: [
    'The agent runs machines in a folder of its own and answers at the socket agent.sock in it, which only its user may connect to.',
    'The service is told of it by --instance-hosts. Machines run on when the agent stops, and are found when it starts again.',
  ].join('\n'),
  arguments: {},
  options: {
    config: { type: 'text', value: 'FILE', help: 'settings file (default: none)', completes: 'file' },
    ...options,
  },
  examples: [
    ['imprint agent --data /srv/left', 'a host'],
    ['imprint serve --instance-hosts left=/srv/left/agent.sock', 'a service that knows it'],
  ],
  exits: [6, 7],
  async run({ config, ...flags }, { serveAgent }) {
    const status = await serveAgent(flags as Partial<Record<SettingName, string>>, config as string | undefined)
    return status === 0 ? 0 : 1
  },
})
