/** `imprint agent`: the hypervisor of this machine, served to a service elsewhere on it. With wiring.ts one of the files that name an adapter. */
import { mkdirSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { lockFolder } from './base/folder-lock.ts'
import { MachineAgent } from './instances/hypervisor/remote/machine-agent.ts'
import { openLog } from './serve/process/log.ts'
import { readSettings, type SettingName } from './settings/settings.ts'
import { confinement, letPass, openHypervisor } from './wiring-machines.ts'

const SOCKET = 'agent.sock'
const MACHINES = 'machines'

/** Runs until SIGTERM or SIGINT; machines run on. @returns the exit status. @throws ServiceError where this machine can run none */
export async function serveAgent(
  flags: Readonly<Partial<Record<SettingName, string>>>,
  configFile: string | undefined,
): Promise<number> {
  const settings = readSettings(flags, process.env, configFile)
  const stopped = new Promise<NodeJS.Signals>((told) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, told)
  })
  const data = resolve(settings.data)
  mkdirSync(data, { recursive: true, mode: 0o700 })
  await using opened = new AsyncDisposableStack()
  opened.defer(lockFolder(join(data, 'lock')))
  const { log, file } = openLog(settings, data)
  opened.defer(() => {
    log.info({ event: 'stopped' })
    log.flush()
  })
  const onProblem = (error: unknown) => log.error({ event: 'background-problem', what: 'instances', err: error })
  const confined = await confinement(settings)
  if (confined.user) await letPass(data, [MACHINES, SOCKET])
  const hypervisor = await openHypervisor(settings, confined, join(data, MACHINES), log, onProblem)
  void hypervisor.abilities // throws where there is no QEMU: an agent is for nothing else
  const socketPath = join(data, SOCKET)
  opened.adopt(await MachineAgent.listen({ hypervisor, socketPath, onProblem }), (agent) => agent.close())
  const places = [`  socket  ${socketPath}`, ...(file ? [`  log     ${file}`] : [])]
  process.stdout.write(
    [
      'The agent of this host answers.',
      ...places,
      '',
      '  Tell the service of it:',
      `    imprint serve --instance-hosts ${basename(data)}=${socketPath}`,
      '',
    ].join('\n'),
  )
  log.info({ event: 'started', socketPath })
  log.info({ event: 'stopping', signal: await stopped })
  return 0
}
