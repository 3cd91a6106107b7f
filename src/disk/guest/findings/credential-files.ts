/** A file that a program keeps credentials in. */
interface CredentialFile {
  /** For people. */
  readonly kind: string
  /** Its path, or the end of it, in lower case. */
  readonly at: RegExp
  /** Whether credentials are in it; absent: where it is not empty they are. */
  readonly holds?: (text: string) => boolean
}

/*
 * Every expression is held against lines of strangers: between two things that repeat stands one that neither can be, or a bound.
 */
const any =
  (line: RegExp) =>
  (text: string): boolean =>
    text.split('\n').some((each) => line.test(each.slice(0, 4096)))

const PASSWORD_URL = /:\/\/[^/@\s:]{1,100}:[^/@\s]{1,500}@/
const assigns = (names: string): RegExp => new RegExp(`^[ \\t"'-]*(?:${names})["']?[ \\t]*[=:][ \\t]*["']?[^ \\t"'$#{]`, 'i')

function holdsDockerAuths(text: string): boolean {
  try {
    const { auths } = JSON.parse(text) as { auths?: Record<string, { auth?: unknown; identitytoken?: unknown }> }
    return Object.values(auths ?? {}).some((each) => Boolean(each?.auth) || Boolean(each?.identitytoken))
  } catch {
    return /"(?:auth|identitytoken)"/.test(text)
  }
}

const credentialFiles: readonly CredentialFile[] = [
  {
    kind: 'AWS credentials',
    at: /\/\.aws\/(?:credentials|config)$/,
    holds: any(assigns('aws_secret_access_key|aws_session_token')),
  },
  { kind: 'AWS sign-in', at: /\/\.aws\/(?:sso|cli)\/cache\/[^/]+\.json$/ },
  {
    kind: 'Azure credentials',
    at: /\/\.azure\/(?:accesstokens\.json|msal_token_cache\.(?:json|bin)|service_principal_entries\.(?:json|bin))$/,
  },
  {
    kind: 'Google Cloud credentials',
    at: /\/(?:\.config\/)?gcloud\/(?:credentials\.db|access_tokens\.db|application_default_credentials\.json|legacy_credentials\/.+)$/,
  },
  {
    kind: 'credentials of container registries',
    at: /\/(?:\.docker\/config\.json|\.dockercfg|containers\/auth\.json|kubelet\/config\.json)$/,
    holds: holdsDockerAuths,
  },
  {
    kind: 'credentials of a Kubernetes cluster',
    at: /\/(?:\.kube\/config|kubernetes\/[a-z-]+\.conf|k3s\/k3s\.yaml|rke2\/rke2\.yaml)$/,
    holds: any(assigns('client-key-data|token|password|id-token|refresh-token')),
  },
  { kind: 'token of a Kubernetes node', at: /\/(?:k3s|rke2)\/server\/(?:node-|agent-)?token$/ },
  {
    kind: 'netrc with passwords',
    at: /\/[._]netrc$|\/apt\/auth\.conf$|\/apt\/auth\.conf\.d\/[^/]+$/,
    holds: any(/(?:^|[ \t])password[ \t]{1,100}[^ \t]/),
  },
  { kind: 'npm credentials', at: /\/\.?npmrc$/, holds: any(/(?:_authToken|_auth|_password)[ \t]{0,9}=[ \t]{0,9}["']?[^ \t"'$]/) },
  { kind: 'Yarn credentials', at: /\/\.yarnrc\.yml$/, holds: any(assigns('npmAuthToken|npmAuthIdent')) },
  { kind: 'PyPI credentials', at: /\/\.pypirc$/, holds: any(assigns('password')) },
  { kind: 'pip with a password in an address', at: /\/pip(?:\.conf|\/pip\.conf)$/, holds: any(PASSWORD_URL) },
  { kind: 'RubyGems credentials', at: /\/\.gem\/credentials$/, holds: any(/api_key/) },
  { kind: 'Cargo credentials', at: /\/\.cargo\/credentials(?:\.toml)?$/, holds: any(assigns('token')) },
  { kind: 'Maven credentials', at: /\/\.m2\/settings\.xml$/, holds: any(/<(?:password|passphrase)>[^<${]/) },
  {
    kind: 'Gradle credentials',
    at: /\/\.gradle\/gradle\.properties$/,
    holds: any(/(?:password|token|secret)[a-z]{0,40}[ \t]{0,9}=[ \t]{0,9}[^ \t]/i),
  },
  { kind: 'Composer credentials', at: /\/\.?composer\/auth\.json$/ },
  { kind: 'Git credentials', at: /\/(?:\.git-credentials|\.config\/git\/credentials)$/, holds: any(PASSWORD_URL) },
  { kind: 'a Git remote with a password', at: /\/\.git\/config$/, holds: any(PASSWORD_URL) },
  { kind: 'GitHub CLI credentials', at: /\/\.config\/gh\/hosts\.yml$/, holds: any(assigns('oauth_token')) },
  { kind: 'GitLab CLI credentials', at: /\/\.config\/glab-cli\/config\.yml$/, holds: any(assigns('token')) },
  { kind: 'Vault token', at: /\/\.vault-token$/ },
  { kind: 'Terraform credentials', at: /\/(?:\.terraform\.d\/credentials\.tfrc\.json|\.terraformrc)$/, holds: any(/token/) },
  {
    kind: 'OpenStack credentials',
    at: /\/(?:openstack\/)?(?:clouds|secure)\.ya?ml$/,
    holds: any(assigns('password|application_credential_secret|token')),
  },
  {
    kind: 'OpenStack credentials',
    at: /openrc(?:\.sh)?$/,
    holds: any(/OS_(?:PASSWORD|APPLICATION_CREDENTIAL_SECRET|TOKEN)=["']?[^ \t"'$]/),
  },
  { kind: 'MySQL password', at: /\/(?:\.my\.cnf|mysql\/debian\.cnf)$/, holds: any(assigns('password')) },
  { kind: 'MySQL login path', at: /\/\.mylogin\.cnf$/ },
  { kind: 'PostgreSQL passwords', at: /\/\.pgpass$/, holds: any(/^[^#:\n]{1,255}:[^:]{1,255}:[^:]{1,255}:[^:]{1,255}:[^ ]/) },
  {
    kind: 'S3 credentials',
    at: /\/(?:\.s3cfg|\.boto|\.passwd-s3fs|passwd-s3fs)$/,
    holds: any(/secret|^[^#\s:]{8,128}:[^\s:]{8}/i),
  },
  {
    kind: 'rclone credentials',
    at: /\/rclone(?:\/rclone)?\.conf$/,
    holds: any(assigns('pass|password|token|secret_access_key|client_secret')),
  },
  { kind: 'Kerberos keys', at: /\/(?:krb5\.keytab|[^/]+\.keytab)$/ },
  { kind: 'Samba secrets', at: /\/samba\/private\/secrets\.tdb$/ },
  { kind: 'CIFS password', at: /\/(?:\.smbcredentials|\.cifs|smbcredentials)$/, holds: any(assigns('password')) },
  {
    kind: 'PPP secrets',
    at: /\/ppp\/(?:chap|pap)-secrets$/,
    holds: any(/^[ \t]*[^#* \t][^ \t]{0,255}[ \t]{1,99}[^ \t]{1,255}[ \t]{1,99}[^ \t*"]/),
  },
  { kind: 'Tailscale state', at: /\/tailscale\/tailscaled\.state$/ },
  { kind: 'SUSE registration', at: /\/zypp\/credentials\.d\/[^/]+$/, holds: any(assigns('password')) },
  { kind: 'Ubuntu Pro token', at: /\/ubuntu-advantage\/private\/machine-token\.json$/ },
  {
    kind: 'a repository with a password in its address',
    at: /\/(?:apt\/sources\.list|(?:sources\.list\.d|yum\.repos\.d|repos\.d)\/[^/]+|apk\/repositories)$/,
    holds: any(PASSWORD_URL),
  },
]
const ANY_AT = new RegExp(credentialFiles.map(({ at }) => `(?:${at.source})`).join('|'))

/** What credentials a file holds, for people; undefined: none that are known. @param text asked for where its path is one of theirs */
export async function credentialsAt(path: string, text: () => Promise<string | undefined>): Promise<string | undefined> {
  const lower = path.toLowerCase()
  if (!ANY_AT.test(lower)) return undefined
  for (const { kind, at, holds } of credentialFiles) {
    if (at.test(lower) && (!holds || holds((await text()) ?? ''))) return kind
  }
  return undefined
}
