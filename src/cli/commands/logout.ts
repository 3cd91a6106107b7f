import { isServiceError } from '../../base/errors.ts'
import { HttpClient } from '../client/http-client.ts'
import { IdentityClient } from '../client/identity-client.ts'
import { command } from '../command.ts'
import { forgetLogin, readLogin } from '../login-file.ts'

export const logout = command({
  name: 'logout',
  summary: 'Forget the login, here and at the service',
  arguments: {},
  options: {},
  examples: [['imprint logout', 'end what imprint login began']],
  exits: [7],
  async run(_, { out, environment }) {
    const login = await readLogin(environment).catch(() => undefined)
    if (login) {
      const http = new HttpClient(login.url)
      http.token = login.token
      try {
        const identity = new IdentityClient(http)
        if (login.credential) await identity.deleteApplicationCredential(login.userId, login.credential.id).catch(ignoreGone)
        await identity.revoke(login.token).catch(ignoreGone)
      } catch (error) {
        if (!isServiceError(error, 'unavailable')) throw error
        out.note(`${login.url} does not answer: forgotten here, but the credential lives on there until someone deletes it.`)
      } finally {
        http.close()
      }
    }
    await forgetLogin(environment)
    out.result({ url: login?.url ?? null }, () => out.line(login ? `Logged out of ${login.url}.` : 'You were not logged in.'))
    return 0
  },
})

/** The token has expired or what we take back is gone already. */
function ignoreGone(error: unknown): void {
  const gone = ['unauthenticated', 'not-found', 'denied']
  if (!isServiceError(error) || !gone.includes(error.code)) throw error
}
