/** Users, projects and roles by way of the Identity v3 API: the same calls prepare Keystone and Imprint. */

export interface Login {
  readonly user: string
  readonly password: string
  /** Absent: a token for the whole system. */
  readonly project?: string
}
export interface Account {
  readonly user: string
  readonly password: string
  readonly project: string
  readonly roles: readonly string[]
}
export interface KnownAccount extends Account {
  readonly userId: string
  readonly projectId: string
}
interface Named {
  readonly id: string
  readonly name: string
}
type Kind = 'users' | 'projects' | 'roles' | 'services'

/** @returns the token. Throws for any answer but 201. */
export async function logIn(identityUrl: string, login: Login): Promise<string> {
  const { user, password, project } = login
  const scope = project ? { project: { name: project, domain: { id: 'default' } } } : { system: { all: true } }
  const identity = { methods: ['password'], password: { user: { name: user, password, domain: { id: 'default' } } } }
  const response = await fetch(`${identityUrl}/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ auth: { identity, scope } }),
  })
  if (response.status !== 201) throw new Error(`login of ${user} at ${identityUrl}: ${response.status} ${await response.text()}`)
  return response.headers.get('x-subject-token')!
}

export class IdentityClient {
  readonly #url: string
  readonly #token: string

  constructor(url: string, token: string) {
    this.#url = url
    this.#token = token
  }

  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(this.#url + path, {
      method,
      headers: { 'x-auth-token': this.#token, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return (text ? JSON.parse(text) : undefined) as T
  }

  /** The one of this name, made if there is none. */
  async ensure(kind: Kind, name: string, attributes: Readonly<Record<string, unknown>> = {}): Promise<Named> {
    const found = await this.call<Record<string, Named[]>>('GET', `/${kind}?name=${encodeURIComponent(name)}`)
    const known = found[kind]?.find((each) => each.name === name)
    if (known) return known
    const single = kind.slice(0, -1)
    const made = await this.call<Record<string, Named>>('POST', `/${kind}`, { [single]: { name, ...attributes } })
    return made[single]!
  }

  async ensureAccount(account: Account): Promise<KnownAccount> {
    const project = await this.ensure('projects', account.project, { domain_id: 'default' })
    const user = await this.ensure('users', account.user, { domain_id: 'default', password: account.password })
    for (const name of account.roles) {
      const role = await this.ensure('roles', name)
      await this.call('PUT', `/projects/${project.id}/users/${user.id}/roles/${role.id}`)
    }
    return { ...account, userId: user.id, projectId: project.id }
  }
}

/** Who takes part in every comparison: an administrator, a member, a member of another project, and one who only reads. */
export const cast = {
  admin: { user: 'admin', password: 'admin', project: 'admin', roles: ['admin'] },
  member: { user: 'demo', password: 'demo', project: 'demo', roles: ['member', 'reader'] },
  other: { user: 'alt', password: 'alt', project: 'alt', roles: ['member', 'reader'] },
  reader: { user: 'viewer', password: 'viewer', project: 'demo', roles: ['reader'] },
} as const satisfies Record<string, Account>
export type Role = keyof typeof cast

/** Makes all of the cast where its administrator exists already. */
export async function assembleCast(
  identityUrl: string,
): Promise<Readonly<Record<Role, KnownAccount & { readonly token: string }>>> {
  const client = new IdentityClient(identityUrl, await logIn(identityUrl, cast.admin))
  const ready = async (role: Role) => ({
    ...(await client.ensureAccount(cast[role])),
    token: await logIn(identityUrl, cast[role]),
  })
  return {
    admin: await ready('admin'),
    member: await ready('member'),
    other: await ready('other'),
    reader: await ready('reader'),
  }
}
