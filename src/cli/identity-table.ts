import type { Context } from './command.ts'

/** What `project list` and `user list` show. @returns the exit status */
export async function showIdentities({ out, connect }: Pick<Context, 'out' | 'connect'>, kind: 'projects' | 'users'): Promise<0> {
  const { identity } = await connect()
  const found = await identity.list(kind)
  out.result(found, () =>
    out.table(found, [
      { title: 'ID', value: ({ id }) => id },
      { title: 'NAME', value: ({ name }) => name },
      {
        title: 'ENABLED',
        value: ({ enabled }) => (enabled ? 'yes' : 'no'),
        tone: ({ enabled }) => (enabled ? 'plain' : 'bad'),
      },
    ]),
  )
  return 0
}
