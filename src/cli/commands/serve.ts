import { type SettingName, settingsTable } from '../../settings/settings.ts'
import { command, type OptionSpec } from '../command.ts'

interface ShownSetting {
  readonly summary: string
  readonly default: unknown
  readonly show?: (value: never) => string
  readonly secret?: true
}

const shownDefault = ({ default: byDefault, show }: ShownSetting): string => {
  if (Array.isArray(byDefault)) return byDefault.length > 0 ? byDefault.join(',') : 'none'
  if (byDefault === '') return 'none'
  return show ? show(byDefault as never) : String(byDefault)
}

/** What a command that runs a process of ours takes, by the setting's name. */
export const settingOptions = Object.fromEntries(
  (Object.entries(settingsTable) as [SettingName, ShownSetting][])
    .filter(([, { secret }]) => !secret)
    .map(([name, setting]): [string, OptionSpec] => [
      name,
      { type: 'text', value: 'VALUE', help: `${setting.summary} (default: ${shownDefault(setting)})` },
    ]),
) as Record<string, { readonly type: 'text'; readonly value: string; readonly help: string }>

export const serve = command({
  name: 'serve',
  summary: 'Run the image service',
  description: [
    'Every setting may stand in the settings file (JSON; --config, or IMPRINT_CONFIG), in the environment, or here; the last of',
    'these wins. --max-image-bytes is maxImageBytes in the file and IMPRINT_MAX_IMAGE_BYTES in the environment.',
    'IMPRINT_ADMIN_PASSWORD gives the first administrator its password on the first start; it has no flag, for the command line',
    'is visible to everyone on the machine.',
  ].join('\n'),
  arguments: {},
  options: {
    config: { type: 'text', value: 'FILE', help: 'settings file (default: none)', completes: 'file' },
    resetAdminPassword: {
      type: 'flag',
      help: 'give the first administrator a new password (IMPRINT_ADMIN_PASSWORD, or one that is shown once) and its role back',
    },
    ...settingOptions,
  },
  examples: [
    ['imprint serve', 'on this machine, with everything in ./data'],
    ['imprint serve --listen 0.0.0.0:9797 --data /srv/imprint', 'for the network, with its data elsewhere'],
  ],
  exits: [6, 7],
  async run({ config, resetAdminPassword, ...flags }, { serve: start }) {
    const settings = [flags as Partial<Record<SettingName, string>>, config as string | undefined] as const
    const status = await (resetAdminPassword ? start(...settings, { resetAdminPassword: true }) : start(...settings))
    return status === 0 ? 0 : 1
  },
})
