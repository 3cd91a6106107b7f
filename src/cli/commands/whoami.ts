import { command } from '../command.ts'

export const whoami = command({
  name: 'whoami',
  summary: 'Say who you are, where and with which roles',
  arguments: {},
  options: {},
  examples: [['imprint whoami', 'which service, user and project the other commands use']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { url, identity, token } = await connect()
    const who = await identity.whoAmI(token)
    const { userId, userName, projectId, projectName, roles, expiresAt } = who
    const expires = new Date(expiresAt).toISOString()
    out.result({ url, userId, user: userName, projectId, project: projectName, roles, tokenExpiresAt: expires }, () =>
      out.record([
        ['service', url],
        ['user', `${userName} (${userId})`],
        ['project', projectId === null ? null : `${projectName} (${projectId})`],
        ['roles', roles.join(', ')],
        ['token until', expires],
      ]),
    )
    return 0
  },
})
