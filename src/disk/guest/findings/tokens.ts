import { shortDigest } from './private-key.ts'

/** Something in a text that has the form of a token. */
export interface Token {
  readonly kind: string
  readonly fingerprint: string
}

/**
 * Tokens that tell by their form what they are, each with a beginning of its own and bounded lengths, so that one pass over a text is
 * linear in it. From what the services document of their formats.
 */
const forms: Readonly<Record<string, string>> = {
  'AWS access key': '(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])',
  'GitHub token': 'gh[pousr]_[A-Za-z0-9]{36,255}(?![A-Za-z0-9])',
  'GitHub fine-grained token': 'github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}',
  'GitLab token': 'gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-[A-Za-z0-9_-]{20,64}',
  'Slack token': 'xox[abeoprs]-[0-9A-Za-z-]{20,255}',
  'Slack webhook': 'https://hooks\\.slack\\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{24}',
  'Google API key': 'AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])',
  'Stripe key': '[rs]k_live_[0-9A-Za-z]{24,255}',
  'npm token': 'npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])',
  'PyPI token': 'pypi-AgEI[A-Za-z0-9_-]{50,255}',
  'Vault token': 'hv[sbr]\\.[A-Za-z0-9_-]{24,255}',
  'DigitalOcean token': 'do[oprt]_v1_[a-f0-9]{64}',
  'Hugging Face token': 'hf_[A-Za-z]{34}(?![A-Za-z0-9])',
  'SendGrid key': 'SG\\.[A-Za-z0-9_-]{22}\\.[A-Za-z0-9_-]{43}',
  'Docker Hub token': 'dckr_pat_[A-Za-z0-9_-]{27,64}',
  'Tailscale key': 'tskey-[a-z]{2,8}-[A-Za-z0-9]{8,32}-[A-Za-z0-9]{16,64}',
}
const kinds = Object.keys(forms)
const ANY = new RegExp(
  `(?<![A-Za-z0-9_-])(?:${Object.values(forms)
    .map((form) => `(${form})`)
    .join('|')})`,
  'g',
)
const MAX_TOKENS = 100
/** Fewer different characters are a placeholder: `xxxxxxxx`. */
const MIN_CHARACTERS = 8

export function tokensIn(text: string): readonly Token[] {
  const found = new Map<string, Token>()
  for (const match of text.matchAll(ANY)) {
    const secret = match[0]
    if (secret.includes('EXAMPLE') || new Set(secret.slice(-20)).size < MIN_CHARACTERS) continue
    const kind = kinds[match.findIndex((group, at) => at > 0 && group !== undefined) - 1]!
    found.set(secret, { kind, fingerprint: shortDigest(secret) })
    if (found.size >= MAX_TOKENS) break
  }
  return [...found.values()]
}
