import { join } from 'node:path'
import type { ImprintService } from '../../test/e2e/image-service.ts'
import { must } from '../../test/peers/command.ts'
import { cast } from '../../test/peers/identity-client.ts'

const program = join(import.meta.dirname, '../../bin/imprint')
const NAME = 'bench-added'

/** `imprint`, logged in. */
export interface CommandLine {
  add(path: string): Promise<void>
  /** What was added. */
  deleteAll(): Promise<void>
}

export async function commandLine({ address }: Pick<ImprintService, 'address'>, folder: string): Promise<CommandLine> {
  const env = { HOME: folder, XDG_CONFIG_HOME: join(folder, 'config'), XDG_CACHE_HOME: join(folder, 'cache') }
  const { user, password, project } = cast.member
  const run = (...args: string[]) => must([program, ...args], { env })
  const login = ['login', address, '--user', user, '--project', project, '--password-stdin']
  await must([program, ...login], { env, input: `${password}\n` })
  return {
    add: async (path) => void (await run('image', 'add', path, '--name', NAME, '--restart')),
    async deleteAll() {
      const listed = JSON.parse(await run('image', 'list', '--json')) as readonly { id: string; name: string }[]
      for (const { id, name } of listed) if (name === NAME) await run('image', 'delete', id)
    },
  }
}
