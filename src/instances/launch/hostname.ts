const MAX_CHARACTERS = 63 // RFC 1123, section 2.1, and RFC 1035, section 2.3.4: one label

/** A name that a host may have, made of a display name as Nova's `sanitize_hostname` makes it. */
export function hostnameFrom(name: string, id: string): string {
  const allowed = name
    .replace(/[ _]/g, '-')
    .replace(/[^A-Za-z0-9.-]+/g, '')
    .toLowerCase()
    .replace(/\./g, '-')
  const trimmed = allowed.replace(/^-+/, '').slice(0, MAX_CHARACTERS).replace(/-+$/, '')
  return trimmed === '' ? `server-${id}` : trimmed
}
