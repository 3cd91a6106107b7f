import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PlugsHost } from '../disk-plugs.suite.ts'
import type { MachineHost } from '../machine-host.ts'
import type { MigrationHost } from '../machine-migration.suite.ts'
import { MachineAgent } from './machine-agent.ts'
import { RemoteHypervisor } from './remote-hypervisor.ts'

/** All that the suites ask of a host. */
type SuiteHost = MigrationHost & PlugsHost

/** A host of a suite, asked by way of an agent, which starts and ends with whoever asks. */
export async function byAgent(host: Omit<SuiteHost, 'open'> & { open(): Promise<MachineHost> }): Promise<SuiteHost> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-agent-'))
  const problems: unknown[] = []
  const onProblem = (error: unknown) => problems.push(error)
  return {
    ...host,
    async open() {
      const socketPath = join(folder, 'agent.sock')
      const agent = await MachineAgent.listen({ hypervisor: await host.open(), socketPath, onProblem })
      const remote = await RemoteHypervisor.open({ socketPath, onProblem })
      const close = remote.close.bind(remote)
      return Object.assign(remote, {
        close: async () => {
          await close()
          await agent.close()
        },
      })
    },
    async close() {
      await host.close()
      await rm(folder, { recursive: true, force: true })
      if (problems.length > 0) throw new AggregateError(problems, 'there were problems at the agent')
    },
  }
}
