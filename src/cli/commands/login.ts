import { hostname } from 'node:os'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { HttpClient } from '../client/http-client.ts'
import { type Credential, type Identity, IdentityClient } from '../client/identity-client.ts'
import { command } from '../command.ts'
import { type Login, writeLogin } from '../login-file.ts'
import { safeText } from '../safe-text.ts'
import { askLine, askSecret, readSecretFromStdin } from '../secret-prompt.ts'
import { DEFAULT_URL } from '../session.ts'

export const login = command({
  name: 'login',
  summary: 'Log in to a service, so that the other commands can speak to it',
  description: [
    'Asks for the password and keeps an application credential, which may do what you may in that project until imprint logout,',
    'in ~/.config/imprint/login.json, readable by you alone. The password itself is kept nowhere.',
    'Where OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME (or OS_TOKEN) stand in the environment, no login is needed.',
  ].join('\n'),
  arguments: { url: { help: `address of the service (default: IMPRINT_URL, or ${DEFAULT_URL})`, optional: true } },
  options: {
    user: { type: 'text', value: 'NAME', help: 'who logs in (asked for when absent; on a first start it is admin)' },
    project: {
      type: 'text',
      value: 'NAME',
      help: 'project to work in, by name or id (default: the only one, or the one named as you)',
    },
    passwordStdin: { type: 'flag', help: 'read the password from the first line of stdin' },
  },
  examples: [
    ['imprint login', 'to the service on this machine'],
    ['imprint login https://images.example.org --user ada --project web', 'elsewhere, in a project'],
    ['pass show imprint | imprint login --user ada --password-stdin', 'without a terminal'],
  ],
  exits: [3, 4, 7],
  async run({ url, user, project, passwordStdin }, { out, environment }) {
    const http = new HttpClient(url ?? environment.IMPRINT_URL ?? DEFAULT_URL)
    try {
      const name = user ?? (await askLine('User: '))
      const password = passwordStdin
        ? await readSecretFromStdin()
        : await askSecret(`Password of ${safeText(name)} at ${http.baseUrl}: `)
      const made = await logIn(http, { kind: 'password', user: name, password }, project)
      await writeLogin(environment, made)
      out.result({ url: made.url, user: made.userName, project: made.projectName }, () => {
        const where = made.projectName === null ? 'no project' : `project ${safeText(made.projectName)}`
        out.line(`Logged in at ${made.url} as ${safeText(made.userName)}, ${where}.`)
        out.note('Next: imprint image add FILE, or imprint image list')
      })
      return 0
    } finally {
      http.close()
    }
  },
})

async function logIn(http: HttpClient, credential: Credential, project: string | undefined): Promise<Login> {
  const identity = new IdentityClient(http)
  const who = await inProject(http, identity, credential, project)
  http.token = who.token
  const name = `imprint on ${hostname().slice(0, 100)}, ${new Date().toISOString()}`
  const kept = await identity.createApplicationCredential(who.userId, name).catch((error: unknown) => {
    // a service with its identity elsewhere may not give any out: then the login lasts as long as its token
    if (isServiceError(error) && ['not-found', 'denied', 'unsupported'].includes(error.code)) return null
    throw error
  })
  const { userId, userName, projectId, projectName, token, expiresAt } = who
  return { url: http.baseUrl, userId, userName, projectId, projectName, credential: kept, token, expiresAt }
}

async function inProject(
  http: HttpClient,
  identity: IdentityClient,
  credential: Credential,
  project: string | undefined,
): Promise<Identity> {
  if (project !== undefined) return identity.authenticate(credential, project)
  const first = await identity.authenticate(credential)
  if (first.projectId !== null) return first
  http.token = first.token
  const mine = (await identity.myProjects()).filter(({ enabled }) => enabled)
  const chosen = mine.length === 1 ? mine[0] : mine.find(({ name }) => name === first.userName)
  if (chosen) return identity.authenticate({ kind: 'token', token: first.token }, chosen.id)
  if (mine.length === 0) {
    throw new ServiceError(
      'denied',
      `${first.userName} has a role in no project; an administrator gives one with: imprint project grant`,
    )
  }
  const names = mine.map(({ name }) => `  ${name}`).join('\n')
  throw new ServiceError('invalid-request', `${first.userName} works in several projects; choose one with --project:\n${names}`)
}
