import { randomUUID } from 'node:crypto'

/**
 * What identity keeps in the catalog: one kind of document for each interface below. Passwords and secrets stand here only as
 * salted hashes (passwords.ts), tokens only as the SHA-256 that is their key.
 */
export interface UserRecord {
  readonly id: string
  readonly name: string
  readonly enabled: boolean
  readonly description: string | null
  readonly defaultProjectId: string | null
  /** In the form of passwords.ts; null: nobody logs in as this user by password. */
  readonly passwordHash: string | null
  readonly createdAt: number
  /** Further attributes that clients keep with a user, `email` above all. */
  readonly extra: Readonly<Record<string, unknown>>
}

export interface ProjectRecord {
  readonly id: string
  readonly name: string
  readonly enabled: boolean
  readonly description: string
  /** Ascending, distinct. */
  readonly tags: readonly string[]
  readonly createdAt: number
  readonly extra: Readonly<Record<string, unknown>>
}

export interface RoleRecord {
  readonly id: string
  readonly name: string
  readonly description: string | null
  /** The three built-in roles can be neither changed nor deleted. */
  readonly immutable: boolean
}

/** Key: `<user id>|<scope key>|<role id>`. */
export interface AssignmentRecord {
  readonly userId: string
  readonly scope: Scope
  readonly roleId: string
}

export interface ApplicationCredentialRecord {
  readonly id: string
  readonly name: string
  readonly description: string | null
  readonly userId: string
  readonly projectId: string
  readonly roleIds: readonly string[]
  readonly secretHash: string
  /** Milliseconds since 1970, with a fraction: clients name microseconds and expect them back. null: for as long as its user and roles last. */
  readonly expiresAt: number | null
  /** May make and delete application credentials itself. */
  readonly unrestricted: boolean
  readonly createdAt: number
}

/**
 * Key: SHA-256 of the token, hex. All that a request needs to know stands here, so that authentication is one read; whatever
 * takes a right away (tokens.ts, `revoke…`) deletes the tokens it concerns in its own transaction.
 */
export interface TokenRecord {
  readonly userId: string
  /** Names as they were when the token was issued. */
  readonly userName: string
  readonly scope: Scope
  readonly projectName: string | null
  /** Implied roles included. */
  readonly roles: readonly RoleReference[]
  readonly methods: readonly string[]
  /** Its own, then that of the token it was got with. They name a token in logs without giving it away. */
  readonly auditIds: readonly string[]
  readonly issuedAt: number
  readonly expiresAt: number
  readonly applicationCredential: { readonly id: string; readonly name: string; readonly unrestricted: boolean } | null
}
export interface RoleReference {
  readonly id: string
  readonly name: string
}

export type Scope =
  | { readonly kind: 'project'; readonly projectId: string }
  | { readonly kind: 'domain' }
  | { readonly kind: 'system' }
  | { readonly kind: 'none' }

export const scopeKey = (scope: Scope): string => (scope.kind === 'project' ? `project:${scope.projectId}` : scope.kind)

/** There is one domain. Clients ask for it by either of these. */
export const DOMAIN = { id: 'default', name: 'Default' } as const

/** 32 hex digits, as clients know ids of this API. */
export const newId = (): string => randomUUID().replaceAll('-', '')

/** Ids come out of URLs: whatever is not shaped like one names nothing. */
export const isId = (text: string): boolean => /^[A-Za-z0-9-]{1,64}$/.test(text)

/** Two spellings of the same letters are one name. */
export const nameKey = (name: string): string => name.normalize('NFC')
